"""Three cures for a VAE that speaks another latent language than the pipeline's UNet (notebook 06).

«old» is the VAE that the UNet was trained with, «model» the one that is to take its place.
"""

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F

from helpers.budget import generator_for
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
    """Cure 2: the encoder learns to write the old latents, and the decoder to read them; nats per image.

    Each half learns from the old encoder alone: a decoder that reads the new one settles with it on a language between
    the two.  «apart» is the squared distance of the two posterior means, in units of the old latents' variance, per number.
    """
    with torch.no_grad():
        wanted = old.encode(to_signed(batch.images))
    written = model.encode(to_signed(batch.images)).mean
    apart = F.mse_loss(written, wanted.mean, reduction="none").flatten(1).mean(1) * old.settings.scaling_factor**2
    nll = calibrated_gaussian_nll(to_unit(model.decode(wanted.sample(generator))), batch.images)
    return {"loss": nll + weight * apart, "nll": nll, "apart": apart}


def with_encoder(model: ConvVAE, old: ConvVAE) -> ConvVAE:
    """`model` with a copy of the old encoder and the old scaling factor, in place: what cure 1 begins with."""
    model.encoder, model.to_moments = copy.deepcopy(old.encoder), copy.deepcopy(old.to_moments)
    return speaks_like(model, old)


def speaks_like(model: ConvVAE, old: ConvVAE) -> ConvVAE:
    """`model` with the old scaling factor, in place: whoever takes over a latent space takes over its scale."""
    model.settings = replace(model.settings, scaling_factor=old.settings.scaling_factor)
    return model


@torch.no_grad()
def other_language(vae: ConvVAE, seed: int) -> ConvVAE:
    """A copy of `vae` whose latent channels have changed places and signs at random, in encoder and decoder alike.

    It gives every picture back as before, at the same loss, and the same training could as well have ended in it:
    initial weights and noise have no preferred order and no preferred sign, and nor has Adam.
    """
    generator, n = generator_for("other language", seed), vae.settings.latent_channels
    order, signs = torch.randperm(n, generator=generator), 2.0 * torch.randint(0, 2, (n, 1, 1, 1), generator=generator) - 1
    found, signs = copy.deepcopy(vae), signs.to(vae.from_latent.weight)
    (mean, logvar), (mean_bias, logvar_bias) = vae.to_moments.weight.split(n), vae.to_moments.bias.split(n)
    found.to_moments.weight.copy_(torch.cat([signs * mean[order], logvar[order]]))
    found.to_moments.bias.copy_(torch.cat([signs.flatten() * mean_bias[order], logvar_bias[order]]))
    found.from_latent.weight.copy_(vae.from_latent.weight[:, order] * signs.movedim(0, 1))
    return found


def linear_map(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The matrix M (d, e) and the offset c (e,) for which a @ M + c, a: (N, d), comes nearest to b (N, e): least squares."""
    ones = torch.ones(len(a), 1)  # on the CPU, where every least-squares driver is
    solution = torch.linalg.lstsq(torch.cat([a.cpu(), ones], dim=1), b.cpu()).solution.to(b.device)  # (d + 1, e)
    return solution[:-1], solution[-1]
