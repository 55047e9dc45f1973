"""The recipe behind Stable Diffusion's autoencoder: L1, perceptual distance, discriminator.

Images are (B, 3, H, W) in [0, 1].  Esser et al. 2021 (VQGAN), section 3.2;
CompVis/taming-transformers, modules/losses/vqperceptual.py.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from helpers.models.distributions import VAEOutput


class PatchDiscriminator(nn.Module):
    """Images (B, 3, H, W) → one logit for each overlapping patch, (B, 1, h, w).

    A positive logit means "a photograph".  PatchGAN, Isola et al. 2017; layers=3 looks at 70×70
    pixels, layers=2 at 34×34.  GroupNorm instead of their BatchNorm: a picture's logits then do not
    depend on the others in its batch.
    """

    def __init__(self, width: int = 64, layers: int = 3, groups: int = 8):
        super().__init__()
        widths = [width * 2**i for i in range(layers)]
        pairs = zip(widths, [*widths[1:], widths[-1] * 2], strict=True)
        parts: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for level, (a, b) in enumerate(pairs, start=1):
            stride = 1 if level == layers else 2
            parts += [nn.Conv2d(a, b, 4, stride=stride, padding=1)]
            parts += [nn.GroupNorm(groups, b), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*parts, nn.Conv2d(2 * widths[-1], 1, 4, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(2 * x - 1)  # (B, 3, H, W) → (B, 1, h, w)


def hinge_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """The discriminator's loss per image, (B,), from logits (B, 1, h, w).

    Photographs should score above 1, reconstructions below -1; more than that is not asked for.
    """
    return 0.5 * (F.relu(1 - real).flatten(1).mean(1) + F.relu(1 + fake).flatten(1).mean(1))


def adaptive_weight(
    nll: torch.Tensor, generator_loss: torch.Tensor, last: torch.Tensor
) -> torch.Tensor:
    """How much the generator loss counts, so that both pull at the last layer equally.

    ‖∇nll‖ / (‖∇generator_loss‖ + 1e-4), at most 10,000; nll, generator_loss: scalars; last: the
    weights of the decoder's last layer.  Esser et al. 2021, eq. 7.
    """
    if not torch.is_grad_enabled():
        return torch.zeros(())  # an evaluation has no gradients to compare
    (of_nll,) = torch.autograd.grad(nll, last, retain_graph=True)
    (of_generator,) = torch.autograd.grad(generator_loss, last, retain_graph=True)
    ratio = of_nll.float().norm() / (of_generator.float().norm() + 1e-4)
    return ratio.clamp(0, 1e4).detach()


class VAEGANOutput(NamedTuple):
    """What `VAEGAN.forward` returns.

    vae: the VAE's output; real, fake: the discriminator's logits of the images and of the
    reconstructions, without a gradient to the VAE; generated: the logits of the reconstructions,
    without a gradient to the discriminator; distance: perceptual, (B,); last: the weights of the
    decoder's last layer.
    """

    vae: VAEOutput
    real: torch.Tensor
    fake: torch.Tensor
    generated: torch.Tensor
    distance: torch.Tensor
    last: torch.Tensor


class VAEGAN(nn.Module):
    """A VAE, its discriminator and a fixed perceptual distance, trained by one call of `fit`.

    Two losses share one backward pass: the discriminator sees a detached reconstruction, so its
    loss does not reach the VAE; and the generator loss is computed with a detached copy of the
    discriminator, so it does not reach the discriminator.
    """

    def __init__(
        self, vae: nn.Module, discriminator: PatchDiscriminator, distance: nn.Module | None = None
    ):
        super().__init__()
        self.vae = vae
        self.discriminator = discriminator
        self.distance = distance

    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None) -> VAEGANOutput:
        output = self.vae(x, generator)
        decoded = output.decoded
        frozen = {name: w.detach() for name, w in self.discriminator.named_parameters()}
        no_distance = torch.zeros(len(x), device=x.device)
        return VAEGANOutput(
            output,
            real=self.discriminator(x),
            fake=self.discriminator(decoded.detach()),
            generated=functional_call(self.discriminator, frozen, decoded),
            distance=self.distance(decoded, x) if self.distance else no_distance,
            last=self.vae.decoder.conv_out.weight,
        )


def vae_gan_loss(
    model: VAEGAN,
    batch: dict[str, torch.Tensor],
    generator: torch.Generator,
    *,
    beta: float = 1e-6,
    adversarial: float = 0.5,
) -> dict[str, torch.Tensor]:
    """Stable Diffusion's loss per image, with the discriminator's own loss beside it.

    Σ (L1 + distance) + beta · KL + weight · generator loss, and the discriminator's hinge loss.
    Sums run over all values of an image in [-1, 1], as published; adversarial: the generator loss's
    share after the adaptive weight, 0 for none.  Returns {"loss", "reconstruction", "kl",
    "generator", "discriminator"}, each (B,).  The weight is that of the part of the batch at hand:
    with accumulation or several processes training is nearly, not exactly, that of the whole batch.
    """
    x = batch["images"]
    made = model(x, generator)
    error = 2 * (made.vae.decoded.float() - x).abs().flatten(1)  # (B, D); [-1, 1] is twice as wide
    nll = error.sum(1) + error.shape[1] * made.distance.float()
    kl = made.vae.posterior.kl()
    generator_loss = -made.generated.float().flatten(1).mean(1)
    discriminator_loss = hinge_loss(made.real.float(), made.fake.float())

    loss = nll + beta * kl + discriminator_loss
    if adversarial:
        weight = adaptive_weight(nll.mean(), generator_loss.mean(), made.last)
        loss = loss + adversarial * weight * generator_loss
    return {
        "loss": loss,
        "reconstruction": nll,
        "kl": kl,
        "generator": generator_loss,
        "discriminator": discriminator_loss,
    }
