"""Train a convolutional VAE on photographs, for minutes or days, on a laptop or on many GPUs.

twenty minutes with the course's photographs of dogs:
  python -m helpers.train_vae --resolution 64 --factor 4 --minutes 20

a day with your own photographs on all GPUs of this machine, and the result as a file:
  accelerate launch -m helpers.train_vae --folder my_photos --resolution 256 \\
      --batch 32 --minutes 1440 --export my_vae

the figures of that file once more:
  python -m helpers.train_vae --evaluate --folder my_photos \\
      --init-from build/checkpoints/my_vae.safetensors

At the end it prints how well images come back that it never saw.  A file's name decides
whether an image is trained on (85 %), watched during training (5 %) or held out (10 %).
A run that was stopped or killed goes on when the same command comes again.
"""

import argparse
import contextlib
import functools
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from accelerate import PartialState
from torch import nn

from helpers import CourseError
from helpers.data.augment import crop_and_flip
from helpers.data.datasets import load_dogs
from helpers.data.image_folder import load_image_folder
from helpers.data.image_set import ImageSet
from helpers.env import device, profile, survive_terminal
from helpers.metrics.images import SSIM_WINDOW, measure_reconstructions
from helpers.models.conv_vae import ConvVAE, VAEConfig, check_size, image_loss
from helpers.models.discriminator import VAEGAN, PatchDiscriminator, vae_gan_loss
from helpers.models.perceptual import load_perceptual_distance
from helpers.results import describe_device
from helpers.rng import seed_everything
from helpers.training.checkpoints import load_weights, read_tensors
from helpers.training.filmstrip import Filmstrip
from helpers.training.loop import fit
from helpers.training.model_card import export_vae, report
from helpers.training.options import LOSSES, as_typed, parse

# --- the parts of a run ---


def build_model(options: argparse.Namespace) -> tuple[ConvVAE, int]:
    """(the model of the options, or that of --init-from with its weights; the resolution)."""
    path = options.init_from
    if path is None:
        config = VAEConfig.course(options.factor or 8, options.latent_channels or 4)
        if options.channels:
            config = replace(config, channels=tuple(options.channels))
        return ConvVAE(config), options.resolution or 128

    if not path.exists():
        raise CourseError(f"--init-from: there is no file {path}.")
    _, header = read_tensors(path)
    if header.get("class") != ConvVAE.__name__:
        raise CourseError(
            f"--init-from: {path.name} holds no ConvVAE; a file that --export wrote is wanted."
        )
    try:
        model = ConvVAE(**header["config"])
    except (KeyError, TypeError) as error:
        raise CourseError(
            f"--init-from: {path.name} is of another version ({error}); export it again."
        ) from error
    load_weights(model, path)
    return model, options.resolution or header.get("resolution", 128)


def check_trainable(config: VAEConfig, size: int) -> None:
    """CourseError where images of size × size cannot be trained on and measured.

    It is raised before any of them is read.
    """
    check_size(torch.empty(1, 3, size, size, device="meta"), config.factor)
    if size < SSIM_WINDOW:
        raise CourseError(
            f"Images of {size} pixels are too small to be measured: take {SSIM_WINDOW} or more."
        )
    values = 3 * config.factor**2
    if config.latent_channels > values:
        raise CourseError(
            f"{config.latent_channels} latent channels compress nothing: a block of "
            f"{config.factor}×{config.factor} pixels has {values} values."
        )


def load_split(
    options: argparse.Namespace, size: int, split: str, quietly: bool = False
) -> ImageSet:
    """One split of the photographs in --folder, or of the course's dogs.

    quietly: the skipped files were named before.  Of several processes only the first names them.
    """
    quietly = quietly or not PartialState(cpu=device().type == "cpu").is_main_process
    with contextlib.redirect_stdout(io.StringIO()) if quietly else contextlib.nullcontext():
        if options.folder is None:
            return load_dogs(size, split)
        return load_image_folder(options.folder, size, split)


class Objective(NamedTuple):
    """What `fit` trains: a model with the VAE in it, its loss, and that loss in words."""

    model: nn.Module
    loss: Callable
    words: str


def vae_objective(options: argparse.Namespace, vae: ConvVAE) -> Objective:
    """The VAE alone, with the error of --loss and the KL."""
    name = options.loss or "calibrated"
    beta = 0.1 if options.beta is None else options.beta
    loss = functools.partial(image_loss, nll=LOSSES[name], beta=beta)
    return Objective(vae, loss, f"{name} loss, beta {beta:g}")


def vae_gan_objective(options: argparse.Namespace, vae: ConvVAE, size: int) -> Objective:
    """--adversarial: with a discriminator, and with VGG16 where it can be had."""
    distance = None
    words = "L1 and discriminator"
    try:
        if not options.no_perceptual:
            distance = load_perceptual_distance()
            words = "L1, VGG16 and discriminator"
    except CourseError as error:
        words += ", VGG16 could not be had"
        PartialState().print(f"{error} This run goes on without it.")

    discriminator = PatchDiscriminator(layers=3 if size >= 128 else 2)
    beta = 1e-6 if options.beta is None else options.beta
    loss = functools.partial(vae_gan_loss, beta=beta)
    return Objective(VAEGAN(vae, discriminator, distance), loss, f"{words}, beta {beta:g}")


def train(
    options: argparse.Namespace,
    vae: ConvVAE,
    size: int,
    training: ImageSet,
    validation: ImageSet,
) -> str:
    """Run `fit` as the options say: `vae` is trained in place.  Returns what was done, in words."""
    vae.set_gradient_checkpointing(options.gradient_checkpointing)
    if options.compile:  # in place; sampling between the two stays as it is
        vae.encoder.compile()
        vae.decoder.compile()

    names = ("minutes", "steps", "epochs", "accumulate", "lr", "ema", "seed", "precision", "run")
    settings = {name: getattr(options, name) for name in names} | {"batch_size": options.batch}
    if options.adversarial:
        objective = vae_gan_objective(options, vae, size)
        settings |= {"betas": (0.5, 0.9), "clip": None}  # as published
    else:
        objective = vae_objective(options, vae)

    strip = Filmstrip(options.run, validation[:12])
    history = fit(
        objective.model,
        objective.loss,
        training,
        validation=validation,
        augment=functools.partial(crop_and_flip, size=size),
        callback=lambda _, row: strip(vae, row),
        **settings,
    )
    time = f"{history.seconds / 60:.1f} minutes on {describe_device()}"
    return f"{time}, epochs: {len(history.rows)}, {objective.words}, {training.source}"


# --- the command ---


def run(options: argparse.Namespace) -> dict | None:
    """Train, unless --evaluate; then measure, print, export and return the figures.

    Of several processes the first one measures; the others return None.
    """
    seed_everything(options.seed)
    vae, size = build_model(options)
    check_trainable(vae.config, size)
    training = load_split(options, size, "train")
    test = load_split(options, size, "test")  # now: if it is empty, that shows before training
    if len(test) < 2:
        raise CourseError(
            "Only one image is held out, and the figures need two or more: add images to the "
            "folder."
        )

    done = ""
    if not options.evaluate:
        larger = training
        if options.crop_from > 1:
            larger = load_split(options, round(options.crop_from * size), "train", quietly=True)
        done = train(options, vae, size, larger, load_split(options, size, "validation"))
    if not PartialState().is_main_process:
        return None

    if options.export:
        vae.half().float()  # the figures are those of the file
    figures = measure_reconstructions(vae.to(device()), training, test)
    figures["source"] = f"{len(test):,} images; {test.source}"
    print(report(figures))
    if options.export:
        path = export_vae(options.export, vae, size, figures, as_typed(options), done)
        print(f"{'written':18}{path} and its model card")
    return figures


def main(arguments: Sequence[str] | None = None) -> dict | None:
    """The command; from Python, main(["--steps", "4"]) returns the figures of the report."""
    survive_terminal()
    options = parse(arguments, __doc__)
    try:
        profile()  # of a wrong one it is told now, not after the training
        return run(options)
    except CourseError as error:
        sys.exit(f"train_vae: {error}")
    except KeyboardInterrupt as stop:
        sys.exit(f"train_vae: {str(stop) or 'stopped'}; the same command goes on")
    except torch.OutOfMemoryError:
        sys.exit(
            "train_vae: the GPU's memory is full: try a smaller --batch, --accumulate or "
            "--gradient-checkpointing."
        )


if __name__ == "__main__":
    main()
