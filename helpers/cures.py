"""Three cures for a VAE that speaks another latent language than the pipeline's UNet (notebook 06).

«old» is the VAE that the UNet was trained with, «model» the one that is to take its place.
"""

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F

from helpers.conv_vae import ConvVAE, to_signed, to_unit
from helpers.data import Batch
from helpers.losses import calibrated_gaussian_nll


def decoder_loss(model: ConvVAE, batch: Batch, generator: torch.Generator, old: ConvVAE) -> dict[str, torch.Tensor]:
    """Cure 1: the decoder learns to read the old latents; nats per image.  Only the decoder gets a gradient.

    So was Stable Diffusion's «ft-MSE» VAE made: its encoder stayed as it was, and its UNet never noticed.
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


def with_encoder(model: ConvVAE, old: ConvVAE) -> ConvVAE:
    """`model` with a copy of the old encoder and the old scaling factor, in place: what cure 1 begins with."""
    model.encoder, model.to_moments = copy.deepcopy(old.encoder), copy.deepcopy(old.to_moments)
    return speaks_like(model, old)


def speaks_like(model: ConvVAE, old: ConvVAE) -> ConvVAE:
    """`model` with the old scaling factor, in place: whoever takes over a latent space takes over its scale."""
    model.settings = replace(model.settings, scaling_factor=old.settings.scaling_factor)
    return model


def linear_map(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The matrix M (d, e) and the offset c (e,) for which a @ M + c, a: (N, d), comes nearest to b (N, e): least squares."""
    ones = torch.ones(len(a), 1)  # on the CPU, where every least-squares driver is
    solution = torch.linalg.lstsq(torch.cat([a.cpu(), ones], dim=1), b.cpu()).solution.to(b.device)  # (d + 1, e)
    return solution[:-1], solution[-1]
