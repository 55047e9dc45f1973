"""Three cures for a VAE that speaks another latent language than the pipeline's UNet (notebook 06).

«old» is the VAE that the UNet was trained with, «model» the one that is to take its place.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F

from helpers.conv_vae import ConvVAE, to_signed, to_unit
from helpers.data import Batch
from helpers.losses import calibrated_gaussian_nll


def decoder_loss(model: ConvVAE, batch: Batch, generator: torch.Generator, old: ConvVAE) -> dict[str, torch.Tensor]:
    """Cure 1: the decoder learns to read the old latents; nats per image.  Only the decoder gets a gradient.

    So was Stable Diffusion's «ft-MSE» decoder made: its encoder stayed as it was, and its UNet never noticed.
    """
    with torch.no_grad():
        z = old.encode(to_signed(batch.images)).sample(generator)
    return {"loss": calibrated_gaussian_nll(to_unit(model.decode(z)), batch.images)}


def distillation_loss(
    model: ConvVAE, batch: Batch, generator: torch.Generator, old: ConvVAE, weight: float = 300.0
) -> dict[str, torch.Tensor]:
    """Cure 2: the encoder learns to write the old latents, and the decoder goes with it; nats per image.

    «apart» is the squared distance of the two posterior means, in units of the old latents' variance, per number.
    """
    with torch.no_grad():
        wanted = old.encode(to_signed(batch.images)).mean
    posterior = model.encode(to_signed(batch.images))
    apart = F.mse_loss(posterior.mean, wanted, reduction="none").flatten(1).mean(1) * old.settings.scaling_factor**2
    nll = calibrated_gaussian_nll(to_unit(model.decode(posterior.sample(generator))), batch.images)
    return {"loss": nll + weight * apart, "nll": nll, "apart": apart}


def speaks_like(model: ConvVAE, old: ConvVAE) -> ConvVAE:
    """`model` with the old scaling factor, in place: whoever takes over a latent space takes over its scale."""
    model.settings = replace(model.settings, scaling_factor=old.settings.scaling_factor)
    return model
