"""What `helpers.train_vae` minimises: the VAE alone, or with a discriminator beside it."""

import argparse
import functools
from collections.abc import Callable
from typing import NamedTuple

from accelerate import PartialState
from torch import nn

from helpers import CourseError
from helpers.models.conv_vae import ConvVAE, image_loss
from helpers.models.discriminator import VAEGAN, PatchDiscriminator, vae_gan_loss
from helpers.models.perceptual import load_lpips
from helpers.training.options import LOSSES


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
            distance = load_lpips()
            words = "L1, LPIPS and discriminator"
    except CourseError as error:
        words += ", VGG16 could not be had"
        PartialState().print(f"{error} This run goes on without it.")

    discriminator = PatchDiscriminator(layers=3 if size >= 128 else 2)
    beta = 1e-6 if options.beta is None else options.beta
    loss = functools.partial(vae_gan_loss, beta=beta)
    return Objective(VAEGAN(vae, discriminator, distance), loss, f"{words}, beta {beta:g}")


def freeze_encoder(vae: ConvVAE) -> None:
    """Train the decoder alone: pictures get the latents that they had, bit for bit.

    No layer of the encoder works differently in training, and the KL has no gradient then.
    """
    vae.encoder.requires_grad_(False)
    vae.to_moments.requires_grad_(False)
    if vae.linear:
        vae.linear.encode.requires_grad_(False)
