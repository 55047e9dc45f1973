"""Three cures for a VAE whose latents a pipeline's UNet does not understand (notebook 9).

`reference` is the VAE that the UNet was trained with, `model` the one that is to take its place.
The first two cures train `model` by the losses below, and the third one trains the UNet
(`helpers.diffusion.latents`).
"""

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F

from helpers.models.conv_vae import ConvVAE
from helpers.models.losses import calibrated_gaussian_nll
from helpers.rng import generator_for


def decoder_loss(
    model: ConvVAE,
    batch: dict[str, torch.Tensor],
    generator: torch.Generator,
    reference: ConvVAE,
) -> dict[str, torch.Tensor]:
    """Cure 1: the decoder learns to read the reference's latents; {"loss"} in nats per image, (B,).

    Only the decoder gets a gradient.  Stable Diffusion's "ft-MSE" VAE was made so: its encoder
    stayed as it was, and its UNet never noticed.
    """
    with torch.no_grad():
        z = reference.encode(batch["images"]).sample(generator)
    return {"loss": calibrated_gaussian_nll(model.decode(z), batch["images"])}


def distillation_loss(
    model: ConvVAE,
    batch: dict[str, torch.Tensor],
    generator: torch.Generator,
    reference: ConvVAE,
    weight: float = 300.0,
) -> dict[str, torch.Tensor]:
    """Cure 2: the encoder learns to write the reference's latents, and the decoder to read them.

    Returns {"loss", "nll", "apart"}, each (B,), where loss = nll + weight · apart, in nats per
    image.  "apart" is the mean squared distance of the posterior means, as a share of the variance
    of the reference's latents.  Both halves learn from the reference's encoder alone: a decoder
    that read the new encoder would settle with it on latents between the two.
    """
    with torch.no_grad():
        wanted = reference.encode(batch["images"])
    written = model.encode(batch["images"]).mean
    distance = F.mse_loss(written, wanted.mean, reduction="none").flatten(1).mean(1)
    apart = distance * reference.config.scaling_factor**2
    nll = calibrated_gaussian_nll(model.decode(wanted.sample(generator)), batch["images"])
    return {"loss": nll + weight * apart, "nll": nll, "apart": apart}


def share_encoder(model: ConvVAE, reference: ConvVAE) -> ConvVAE:
    """`model` with copies of the reference's encoder and scaling factor, in place.

    This is what cure 1 begins with.
    """
    model.encoder = copy.deepcopy(reference.encoder)
    model.to_moments = copy.deepcopy(reference.to_moments)
    if model.linear and reference.linear:
        model.linear.encode = copy.deepcopy(reference.linear.encode)
    return share_scale(model, reference)


def share_scale(model: ConvVAE, reference: ConvVAE) -> ConvVAE:
    """`model` with the reference's scaling factor, in place: the scale belongs to the latents."""
    model.config = replace(model.config, scaling_factor=reference.config.scaling_factor)
    return model


@torch.no_grad()
def permute_latents(vae: ConvVAE, seed: int) -> ConvVAE:
    """A copy of `vae` whose latent channels have changed places and signs at random.

    Encoder and decoder change alike, so it gives every picture back as before, at the same loss.
    The same training could as well have ended there: initial weights and noise prefer no order and
    no sign, and neither does Adam.
    """
    n = vae.config.latent_channels
    generator = generator_for("other language", seed)
    order = torch.randperm(n, generator=generator)
    signs = 2.0 * torch.randint(0, 2, (n, 1, 1, 1), generator=generator) - 1  # -1 or 1
    signs = signs.to(vae.from_latent.weight)

    found = copy.deepcopy(vae)
    mean, logvar = vae.to_moments.weight.split(n)  # 2 × (C, 2·C, 1, 1)
    found.to_moments.weight.copy_(torch.cat([signs * mean[order], logvar[order]]))
    mean, logvar = vae.to_moments.bias.split(n)  # 2 × (C,)
    found.to_moments.bias.copy_(torch.cat([signs.flatten() * mean[order], logvar[order]]))
    found.from_latent.weight.copy_(vae.from_latent.weight[:, order] * signs.movedim(0, 1))
    return found


def linear_map(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(M (d, e), c (e,)) for which a @ M + c comes nearest to b: least squares.

    a: (N, d), b: (N, e).
    """
    ones = torch.ones(len(a), 1)  # a column that the offset multiplies
    # on the CPU, which has every least-squares driver
    solution = torch.linalg.lstsq(torch.cat([a.cpu(), ones], dim=1), b.cpu()).solution
    solution = solution.to(b.device)  # (d + 1, e)
    return solution[:-1], solution[-1]
