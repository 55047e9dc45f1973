"""Training on latents of a wrong scale, and with a text encoder that has layers.

The same VAE and the same number of steps; every training has one core to itself.  About 20 minutes.
"""

from dataclasses import replace

from helpers.classifiers.dogs import DogClassifier
from helpers.diffusers_bridge import from_diffusers
from helpers.diffusion.latents import train_on_latents
from helpers.diffusion.parts import load_tiny_sd
from helpers.env import budget, published_dir
from helpers.results import describe_device
from helpers.train_tiny_sd import PICTURES, load_seen, measure_prompt_accuracy
from helpers.training.checkpoints import load_shipped
from tests.benchmarks.common import publish, take_shared
from tests.benchmarks.parallel import side_by_side

NEEDS = ("checkpoints/tiny-sd", "checkpoints/dog_classifier")
WRITES = ("results/tiny_sd_scale",)

# standard deviation of the latents, layers of the text encoder
KINDS = ((1.0, 0), (0.25, 0), (4.0, 0), (1.0, 2))
STEPS = budget(quick=2, cpu=800, gpu=800)
DOGS = budget(quick=96, cpu=9600, gpu=9600)


def train(kind: tuple[float, int]) -> dict:
    """Train one kind; the shares of pictures that show what was asked for."""
    latents, layers = kind
    vae = from_diffusers(load_tiny_sd(published_dir("checkpoints") / "tiny-sd").vae)
    scale = latents * vae.config.scaling_factor
    vae.config = replace(vae.config, scaling_factor=scale)
    run = f"bench_tiny_sd_scale-{latents:g}-{layers}"
    pipeline = train_on_latents(vae, load_seen(DOGS), run=run, layers=layers, steps=STEPS)
    classifier = load_shipped(DogClassifier, "dog_classifier")
    shares = measure_prompt_accuracy(pipeline, classifier)
    return {"latents": latents, "layers": layers, "shares": shares, "on": describe_device()}


def main() -> None:
    rows = side_by_side(train, list(KINDS))
    (on,) = take_shared(rows, "on")
    rows.sort(key=lambda row: row["latents"])
    values = {"on": on, "steps": STEPS, "prompts": budget(**PICTURES), "rows": rows}
    publish("tiny_sd_scale", values, seeds=[0], data="drawn dogs, embedded")


if __name__ == "__main__":
    main()
