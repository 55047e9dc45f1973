"""Train a tiny Stable Diffusion from nothing: drawn dogs that sit, with captions, 64×64 pixels (notebook 07).

twenty minutes on two cores, the result as a folder that diffusers loads:
  python -m helpers.text_to_image --minutes 20 --export my_tiny_sd

In the first part of the time the autoencoder is trained, in the rest text encoder and UNet together.
Pictures of fixed prompts are saved on the way.  At the end a classifier says how often the pictures
show what their prompts ask for.  A run that was stopped or killed goes on when the same command comes again.
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from helpers import CourseError
from helpers.budget import budget, published_dir, seed_everything
from helpers.checkpoints import load_shipped
from helpers.conv_vae import ConvVAE, VAEConfig, image_loss
from helpers.data import ImageSet
from helpers.diffusion import PromptStrip, train_on_latents
from helpers.dog_judge import COMBINATIONS, DogJudge, adherence, combination_numbers
from helpers.drawn_dogs import COATS, DrawnDogs, caption, load_drawn_dogs
from helpers.image_metrics import latent_statistics, psnr, reconstruct
from helpers.results import describe_device
from helpers.tiny_sd import sample
from helpers.training import fit

RESOLUTION, FACTOR, CHANNELS = 64, 8, 8  # 64×64 pixels become latents (8, 8, 8)
POSE = "sitting"  # of all dogs: no caption tells it, and where the head can be anywhere, ears take far longer to learn
VAE_SHARE = 0.35  # of the minutes
PICTURES = budget(quick=16, cpu=200, gpu=200)  # of each kind, drawn to be judged
NEVER_SEEN = (  # combinations that are left out of training; each of their words is in it
    ("brown", "floppy", "snow"),
    ("black", "pointy", "grass"),
    ("white", "floppy", "night"),
    ("golden", "pointy", "sand"),
    ("gray", "floppy", "grass"),
    ("red", "pointy", "snow"),
    ("black", "floppy", "sand"),
    ("golden", "floppy", "night"),
)
WATCHED = [  # one of each coat, and two that training does not see
    caption(*combination) for combination in (*(COMBINATIONS[8 * coat + 3 * coat % 8] for coat in range(6)), *NEVER_SEEN[:2])
]
SEEN = tuple(combination for combination in COMBINATIONS if combination not in NEVER_SEEN)


def load_seen(count: int, split: str = "train", seed: int = 0) -> DrawnDogs:
    """Sitting drawn dogs of the combinations that training may see: 40 of every 48 of `count`."""
    dogs = load_drawn_dogs(count, RESOLUTION, split, seed, POSE)
    hidden = combination_numbers([caption(*combination) for combination in NEVER_SEEN])
    return dogs[~torch.isin(combination_numbers(dogs.captions), hidden)]


def train_vae(dogs: DrawnDogs, validation: DrawnDogs, seed: int = 0, run: str | None = None, **length) -> ConvVAE:
    """The autoencoder, of FACTOR and CHANNELS, its scaling factor measured; length: minutes=…, steps=… or epochs=…"""
    seed_everything(seed)
    vae = ConvVAE(VAEConfig.course(FACTOR, CHANNELS))
    loss = functools.partial(image_loss, beta=0.1)
    fit(vae, loss, dogs, batch_size=8, lr=3e-3, ema=0.99, seed=seed, run=run, **length)
    return with_measured_scale(vae, validation)


def with_measured_scale(vae: ConvVAE, dogs: ImageSet) -> ConvVAE:
    """`vae` with 1 / (standard deviation of its latents) in its settings, in place."""
    vae.settings = replace(vae.settings, scaling_factor=latent_statistics(vae, dogs).scaling_factor)
    return vae


def draw_prompts(combinations: Sequence[tuple[str, str, str]], count: int) -> list[str]:
    """`count` prompts that go round and round through the combinations."""
    return [caption(*combinations[i % len(combinations)]) for i in range(count)]


def measure(pipeline, judge: DogJudge, seed: int = 1) -> dict[str, dict[str, float]]:
    """Shares of pictures that show what was asked for, of 200 prompts as in training and of 200 never seen in it."""
    asked = {"seen": draw_prompts(SEEN, PICTURES), "never seen": draw_prompts(NEVER_SEEN, PICTURES)}
    return {kind: adherence(judge, sample(pipeline, prompts, seed=seed), prompts) for kind, prompts in asked.items()}


CARD = """---
library_name: diffusers
---

# {name}: a tiny Stable Diffusion

Draws sitting dogs of 64×64 pixels: «a COAT dog with EARS ears PLACE». COAT: {coats}. EARS: floppy, pointy.
PLACE: on grass, on sand, on snow, at night.

```python
from diffusers import StableDiffusionPipeline

pipeline = StableDiffusionPipeline.from_pretrained("{name}")
pipeline("a golden dog with floppy ears on grass", num_inference_steps=20, guidance_scale=3.0).images[0]
```

- made by: `python -m helpers.text_to_image {typed}`
- trained from nothing, {minutes:g} minutes on {device}, on {dogs:,} drawn dogs, all sitting (no photographs, no other model)
- parameters: {parameters}
- scaling factor of the latents: {scaling_factor:.4f}; the autoencoder alone: {psnr:.2f} dB on drawings never seen

Share of pictures in which a classifier that had no part in the training sees what the prompt asked for
({pictures} prompts each; «never seen»: combinations that were left out of training):

{table}
"""


def _positive(kind: type):
    def read(text: str):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    read.__name__ = {int: "whole number", float: "number"}[kind]  # argparse names it in its message
    return read


def build_parser() -> argparse.ArgumentParser:
    """The options of `python -m helpers.text_to_image`."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.text_to_image", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=_positive(float), default=20.0, metavar="X", help="of training, all parts together (default 20)")
    add("--dogs", type=_positive(int), default=9600, metavar="N", help="draw N; a sixth is kept unseen (default 9600)")
    add("--seed", type=int, default=0, metavar="N", help="of weights, order and noise (default 0)")
    add("--run", default="tiny-sd", metavar="NAME", help="of its checkpoints and samples, in COURSE_RUNS (default tiny-sd)")
    add("--export", metavar="NAME", help="write the pipeline to build/checkpoints/NAME, in fp16, with a model card")
    return parser


def run(options: argparse.Namespace) -> dict:
    """Train, measure, print, export; returns the figures."""
    if options.dogs < 96:
        raise CourseError(f"--dogs {options.dogs} are too few: 96 are two of each combination.")
    judge = load_shipped(DogJudge, "dog_judge")
    dogs, validation = load_seen(options.dogs, seed=options.seed), load_drawn_dogs(96, RESOLUTION, "validation", pose=POSE)
    vae_minutes = VAE_SHARE * options.minutes
    vae = train_vae(dogs, validation, options.seed, f"{options.run}-vae", minutes=vae_minutes)
    quality, scale = psnr(reconstruct(vae, validation), validation.pixels()).mean().item(), vae.settings.scaling_factor
    print(f"autoencoder       {quality:.2f} dB on drawn dogs never seen; scaling factor {scale:.4f}")
    strip = PromptStrip(options.run, WATCHED)
    pipeline = train_on_latents(vae, dogs, options.seed, options.run, strip, minutes=options.minutes - vae_minutes)
    if options.export:  # the figures are those of the file
        _cast(pipeline, torch.float16)
        _cast(pipeline, torch.float32)
    figures = {"psnr": quality, "scaling_factor": scale, "dogs": len(dogs), "shares": measure(pipeline, judge)}
    for kind, shares in figures["shares"].items():
        print(f"{kind:17} " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items()))
    print(f"samples           {len(strip.frames())} sheets in {strip.folder.parent.parent.name}/{strip.folder.parent.name}")
    if options.export:
        print(f"written           {export(options, pipeline, figures)}")
    return figures


def _cast(pipeline, dtype: torch.dtype) -> None:
    """VAE and UNet in `dtype`, in place; pipeline.to(dtype) does it too, with warnings.

    Not the small text encoder: transformers loads it in the dtype that is stored, diffusers loads the rest in float32.
    """
    for part in (pipeline.vae, pipeline.unet):
        for weight in part.parameters():
            weight.data = weight.data.to(dtype)


def export(options: argparse.Namespace, pipeline, figures: dict) -> Path:
    """Write the pipeline in fp16 to checkpoints/NAME (data/ when publishing, else build/), with its model card."""
    parts = {"VAE": pipeline.vae, "UNet": pipeline.unet, "text encoder": pipeline.text_encoder}
    shares = figures["shares"]
    names = list(shares["seen"])
    rows = ["| prompts | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    rows += [f"| {kind} | " + " | ".join(f"{found[name]:.1%}" for name in names) + " |" for kind, found in shares.items()]
    card = CARD.format(
        name=options.export,
        coats=", ".join(COATS),
        typed=f"--minutes {options.minutes:g} --dogs {options.dogs} --seed {options.seed} --export {options.export}",
        minutes=options.minutes,
        pictures=PICTURES,
        device=describe_device(),
        parameters=", ".join(f"{name} {sum(w.numel() for w in part.parameters()):,}" for name, part in parts.items()),
        table="\n".join(rows),
        **{key: figures[key] for key in ("dogs", "scaling_factor", "psnr")},
    )
    folder = published_dir("checkpoints") / options.export
    _cast(pipeline, torch.float16)
    pipeline.save_pretrained(folder)
    _cast(pipeline, torch.float32)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def main(arguments: Sequence[str] | None = None) -> dict:
    """What the command does; from Python, main(["--minutes", "1"]) returns the figures."""
    options = build_parser().parse_args(arguments)
    try:
        return run(options)
    except CourseError as error:
        sys.exit(f"text_to_image: {error}")
    except KeyboardInterrupt as stop:
        sys.exit(f"text_to_image: {str(stop) or 'stopped'}; the same command goes on")


if __name__ == "__main__":
    main()
