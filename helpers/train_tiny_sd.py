"""Train a tiny Stable Diffusion from scratch: drawn dogs that sit, with captions, 64×64 pixels.

twenty minutes on two cores, the result as a folder that diffusers loads:
  python -m helpers.train_tiny_sd --minutes 20 --export my_tiny_sd

In the first part of the time the autoencoder is trained, in the rest text encoder and UNet
together.  Pictures of fixed prompts are saved on the way.  At the end a classifier says how often
the pictures show what their prompts ask for.
A run that was stopped or killed goes on when the same command comes again.
"""

import argparse
import functools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from helpers import CourseError, check_number
from helpers.classifiers.dogs import (
    COMBINATIONS,
    DogClassifier,
    combination_numbers,
    prompt_accuracy,
)
from helpers.data.image_set import ImageSet
from helpers.data.synthetic_dogs import COATS, SyntheticDogs, caption, load_synthetic_dogs
from helpers.diffusion.latents import PromptStrip, train_on_latents
from helpers.diffusion.model_card import pipeline_card
from helpers.diffusion.parts import sample
from helpers.env import budget, check_name, profile, published_dir, survive_terminal
from helpers.metrics.images import psnr, reconstruct
from helpers.metrics.latents import latent_statistics
from helpers.models.conv_vae import ConvVAE, VAEConfig, image_loss
from helpers.rng import seed_everything
from helpers.training.checkpoints import load_shipped, write_library
from helpers.training.loop import fit

RESOLUTION = 64  # pixels; its latents are (8, 8, 8)
FACTOR = 8
CHANNELS = 8
POSE = (
    "sitting"  # of all dogs: no caption tells it, and heads anywhere make ears far slower to learn
)
FIRST_STAGE_SHARE = 0.35  # of the minutes, for the autoencoder
PICTURES = {"quick": 16, "cpu": 200, "gpu": 200}  # of each kind, drawn to be classified
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
SEEN = tuple(combination for combination in COMBINATIONS if combination not in NEVER_SEEN)
_SHOWN = [COMBINATIONS[8 * coat + 3 * coat % 8] for coat in range(len(COATS))]  # one of each coat
WATCHED = [caption(*combination) for combination in (*_SHOWN, *NEVER_SEEN[:2])]


def load_seen(count: int, split: str = "train", seed: int = 0) -> SyntheticDogs:
    """Sitting drawn dogs of the combinations that training may see: 40 of every 48 of `count`."""
    dogs = load_synthetic_dogs(count, RESOLUTION, split, seed, POSE)
    hidden = combination_numbers([caption(*combination) for combination in NEVER_SEEN])
    return dogs[~torch.isin(combination_numbers(dogs.captions), hidden)]


def train_first_stage(
    dogs: SyntheticDogs,
    validation: SyntheticDogs,
    seed: int = 0,
    run: str | None = None,
    **length,
) -> ConvVAE:
    """The autoencoder, of FACTOR and CHANNELS, with its scaling factor measured on `validation`.

    length: minutes=…, steps=… or epochs=…, as `fit` has them.
    """
    seed_everything(seed)
    vae = ConvVAE(VAEConfig.course(FACTOR, CHANNELS))
    loss = functools.partial(image_loss, beta=0.1)
    fit(vae, loss, dogs, batch_size=8, lr=3e-3, ema=0.99, seed=seed, run=run, **length)
    return with_measured_scale(vae, validation)


def with_measured_scale(vae: ConvVAE, dogs: ImageSet) -> ConvVAE:
    """`vae` with 1 / (standard deviation of its latents) in its configuration, in place."""
    scale = latent_statistics(vae, dogs).scaling_factor
    vae.config = replace(vae.config, scaling_factor=scale)
    return vae


def draw_prompts(combinations: Sequence[tuple[str, str, str]], count: int) -> list[str]:
    """`count` prompts that go round and round through the combinations."""
    return [caption(*combinations[i % len(combinations)]) for i in range(count)]


def measure_prompt_accuracy(
    pipeline, classifier: DogClassifier, seed: int = 1
) -> dict[str, dict[str, float]]:
    """`prompt_accuracy` of PICTURES pictures each: {"seen": shares, "never seen": shares}."""
    shares = {}
    for kind, combinations in {"seen": SEEN, "never seen": NEVER_SEEN}.items():
        prompts = draw_prompts(combinations, budget(**PICTURES))
        shares[kind] = prompt_accuracy(classifier, sample(pipeline, prompts, seed=seed), prompts)
    return shares


def build_parser() -> argparse.ArgumentParser:
    """The options of `python -m helpers.train_tiny_sd`."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.train_tiny_sd",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_mutually_exclusive_group().add_argument
    words = "of training, both parts together (default 20)"
    add("--minutes", type=_positive(float), default=20.0, metavar="X", help=words)
    words = "so many batches in each part, instead of minutes"
    add("--steps", type=_positive(int), metavar="N", help=words)
    add = parser.add_argument
    words = "draw N; a sixth is kept unseen (default 9600)"
    add("--dogs", type=_positive(int), default=9600, metavar="N", help=words)
    words = "of weights, order and noise (default 0)"
    add("--seed", type=int, default=0, metavar="N", help=words)
    words = "of its checkpoints and samples, in COURSE_RUNS (default tiny-sd)"
    add("--run", default="tiny-sd", metavar="NAME", help=words)
    words = "write the pipeline to build/checkpoints/NAME, in fp16, with a model card"
    add("--export", metavar="NAME", help=words)
    return parser


def _positive(kind: type):
    """What argparse calls with a text: an int or float above 0."""

    def read(text: str):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    # argparse names it in its message
    read.__name__ = {int: "whole number", float: "number"}[kind]
    return read


def _lengths(options: argparse.Namespace) -> tuple[dict, dict]:
    """How long the autoencoder, and then text encoder and UNet, are trained, for `fit`."""
    if options.steps is not None:
        return {"steps": options.steps}, {"steps": options.steps}
    first = FIRST_STAGE_SHARE * options.minutes
    return {"minutes": first}, {"minutes": options.minutes - first}


def run(options: argparse.Namespace) -> dict:
    """Train, measure, print, export; returns the figures."""
    check_name("--run", options.run)
    if options.export is not None:
        check_name("--export", options.export)
    check_number("--seed", options.seed, 0, 2**63, whole=True)
    if options.dogs < 96:
        raise CourseError(f"--dogs {options.dogs} are too few: 96 are two of each combination.")
    classifier = load_shipped(DogClassifier, "dog_classifier")
    dogs = load_seen(options.dogs, seed=options.seed)
    validation = load_synthetic_dogs(96, RESOLUTION, "validation", pose=POSE)
    first, second = _lengths(options)

    vae = train_first_stage(dogs, validation, options.seed, f"{options.run}-vae", **first)
    quality = psnr(reconstruct(vae, validation), validation.pixels()).mean().item()
    scale = vae.config.scaling_factor
    print(
        f"autoencoder       {quality:.2f} dB on drawn dogs never seen; scaling factor {scale:.4f}"
    )
    strip = PromptStrip(options.run, WATCHED)
    pipeline = train_on_latents(vae, dogs, options.seed, options.run, strip, **second)

    if options.export:  # the figures are those of the file
        _cast(pipeline, torch.float16)
        _cast(pipeline, torch.float32)
    shares = measure_prompt_accuracy(pipeline, classifier)
    for kind, found in shares.items():
        print(f"{kind:17} " + ", ".join(f"{name} {share:.1%}" for name, share in found.items()))
    print(f"samples           {len(strip.frames())} sheets in {options.run}/samples")
    figures = {"psnr": quality, "scaling_factor": scale, "dogs": len(dogs), "shares": shares}
    if options.export:
        print(f"written           {export_pipeline(options, pipeline, figures)}")
    return figures


def _cast(pipeline, dtype: torch.dtype) -> None:
    """VAE and UNet in `dtype`, in place; pipeline.to(dtype) does it too, with warnings.

    Not the small text encoder: transformers loads it in the dtype that is stored, and diffusers
    loads the rest in float32.
    """
    for part in (pipeline.vae, pipeline.unet):
        for weight in part.parameters():
            weight.data = weight.data.to(dtype)


def export_pipeline(options: argparse.Namespace, pipeline, figures: dict) -> Path:
    """Write the pipeline in fp16 to checkpoints/NAME, with its model card.

    That is in data/ when publishing, else in build/.
    """
    if options.steps is None:
        length = f"{options.minutes:g} minutes"
        command = f"--minutes {options.minutes:g}"
    else:
        length = f"{options.steps:,} steps of each part"
        command = f"--steps {options.steps}"
    command += f" --dogs {options.dogs} --seed {options.seed} --export {options.export}"
    words = {"command": command, "length": length, "pictures": budget(**PICTURES)}
    card = pipeline_card(options.export, pipeline, figures, **words)

    def fill(folder: Path) -> None:
        pipeline.save_pretrained(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")

    _cast(pipeline, torch.float16)
    folder = write_library(published_dir("checkpoints") / options.export, fill)
    _cast(pipeline, torch.float32)
    return folder


def main(arguments: Sequence[str] | None = None) -> dict:
    """What the command does; from Python, main(["--minutes", "1"]) returns the figures."""
    survive_terminal()
    options = build_parser().parse_args(arguments)
    try:
        profile()  # of a wrong one it is told now, not after the training
        return run(options)
    except CourseError as error:
        sys.exit(f"train_tiny_sd: {error}")
    except KeyboardInterrupt as stop:
        sys.exit(f"train_tiny_sd: {str(stop) or 'stopped'}; the same command goes on")


if __name__ == "__main__":
    main()
