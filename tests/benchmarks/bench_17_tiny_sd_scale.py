"""Training on latents of a wrong scale: the same VAE and the same number of steps, three spreads.  About 50 minutes.

Every training has one core to itself.
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

SPREADS = (1.0, 0.25, 4.0)
STEPS, DOGS = budget(quick=2, cpu=1200, gpu=3000), budget(quick=96, cpu=9600, gpu=9600)


def train(spread: float) -> dict:
    """Train on latents of this standard deviation; the shares of pictures that show what was asked for."""
    vae = from_diffusers(load_tiny_sd(published_dir("checkpoints") / "tiny-sd").vae)
    vae.settings = replace(vae.settings, scaling_factor=spread * vae.settings.scaling_factor)
    pipeline = train_on_latents(vae, load_seen(DOGS), run=f"bench_17_tiny_sd_scale-{spread:g}", steps=STEPS)
    shares = measure(pipeline, load_shipped(DogJudge, "dog_judge"))["seen"]
    return {"spread": spread, "shares": shares, "on": describe_device()}


def main() -> None:
    rows = side_by_side(train, list(SPREADS))
    (on,) = take_shared(rows, "on")
    values = {"on": on, "steps": STEPS, "prompts": PICTURES, "rows": sorted(rows, key=lambda row: row["spread"])}
    save_result("tiny_sd_scale", values, seeds=[0], data="drawn dogs, embedded")


if __name__ == "__main__":
    main()
