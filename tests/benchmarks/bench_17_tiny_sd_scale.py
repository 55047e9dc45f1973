"""Training on latents of a wrong scale, and with a text encoder that has layers.  About 20 minutes.

The same VAE and the same number of steps; every training has one core to itself.
"""

from dataclasses import replace

from helpers.budget import budget, published_dir
from helpers.checkpoints import load_shipped
from helpers.diffusers_bridge import from_diffusers
from helpers.diffusion import train_on_latents
from helpers.dog_judge import DogJudge
from helpers.results import describe_device, save_result
from helpers.text_to_image import PICTURES, load_seen, measure
from helpers.tiny_sd import load_tiny_sd
from tests.benchmarks.common import side_by_side, take_shared

KINDS = ((1.0, 0), (0.25, 0), (4.0, 0), (1.0, 2))  # standard deviation of the latents, layers of the text encoder
STEPS, DOGS = budget(quick=2, cpu=800, gpu=800), budget(quick=96, cpu=9600, gpu=9600)


def train(kind: tuple[float, int]) -> dict:
    """Train with this spread of latents and so many layers; the shares of pictures that show what was asked for."""
    latents, layers = kind
    vae = from_diffusers(load_tiny_sd(published_dir("checkpoints") / "tiny-sd").vae)
    vae.settings = replace(vae.settings, scaling_factor=latents * vae.settings.scaling_factor)
    run = f"bench_17_tiny_sd_scale-{latents:g}-{layers}"
    pipeline = train_on_latents(vae, load_seen(DOGS), run=run, layers=layers, steps=STEPS)
    shares = measure(pipeline, load_shipped(DogJudge, "dog_judge"))
    return {"latents": latents, "layers": layers, "shares": shares, "on": describe_device()}


def main() -> None:
    rows = side_by_side(train, list(KINDS))
    (on,) = take_shared(rows, "on")
    values = {"on": on, "steps": STEPS, "prompts": PICTURES, "rows": sorted(rows, key=lambda row: row["latents"])}
    save_result("tiny_sd_scale", values, seeds=[0], data="drawn dogs, embedded")


if __name__ == "__main__":
    main()
