"""The recipe behind Stable Diffusion's autoencoder: L1, a perceptual distance and a discriminator of patches.

Esser et al. 2021 (VQGAN), section 3.2; CompVis/taming-transformers, modules/losses/vqperceptual.py.
"""

import socket
from contextlib import redirect_stderr, suppress
from io import StringIO
from pickle import UnpicklingError
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from helpers import CourseError
from helpers.budget import data_dir
from helpers.conv_vae import to_signed, to_unit
from helpers.data import Batch
from helpers.downloads import CONNECT_TIMEOUT
from helpers.mlp import VAEOutput


class PatchDiscriminator(nn.Module):
    """(B, 3, H, W) in [-1, 1] → one logit for each overlapping patch, (B, 1, h, w): positive means "a photograph".

    PatchGAN, Isola et al. 2017; layers=3 looks at 70×70 pixels, layers=2 at 34×34.  GroupNorm instead of their BatchNorm:
    a picture is then judged without regard to the others in its batch.
    """

    def __init__(self, width: int = 64, layers: int = 3, groups: int = 8):
        super().__init__()
        widths = [width * 2**i for i in range(layers)]
        parts: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for level, (a, b) in enumerate(zip(widths, [*widths[1:], widths[-1] * 2], strict=True), start=1):
            stride = 1 if level == layers else 2
            parts += [nn.Conv2d(a, b, 4, stride=stride, padding=1), nn.GroupNorm(groups, b), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*parts, nn.Conv2d(2 * widths[-1], 1, 4, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def hinge_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """The discriminator's loss per image, (B,): photographs should score above 1, reconstructions below -1."""
    return 0.5 * (F.relu(1 - real).flatten(1).mean(1) + F.relu(1 + fake).flatten(1).mean(1))


def adaptive_weight(nll: torch.Tensor, fooling: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """How much the fooling term counts, so that both pull at the decoder's last layer equally.

    ‖∇nll‖ / (‖∇fooling‖ + 1e-4), at most 10,000; nll, fooling: scalars; last: that layer's weights.  Esser et al. 2021,
    eq. 7.
    """
    if not torch.is_grad_enabled():
        return torch.zeros(())  # an evaluation has no gradients to compare
    pulls = [torch.autograd.grad(term, last, retain_graph=True)[0].float().norm() for term in (nll, fooling)]
    return (pulls[0] / (pulls[1] + 1e-4)).clamp(0, 1e4).detach()


class ContestOutput(NamedTuple):
    """What `Contest.forward` returns: the VAE's output, three maps of logits, the perceptual distance (B,), a weight."""

    output: VAEOutput
    real: torch.Tensor
    fake: torch.Tensor
    fooled: torch.Tensor
    distance: torch.Tensor
    last: torch.Tensor


class Contest(nn.Module):
    """A VAE and its discriminator (and a fixed perceptual distance), trained together by one call of `fit`.

    Two losses share one backward pass: the discriminator sees a detached reconstruction (so its loss does not reach the
    VAE), and the VAE is judged by a detached copy of the discriminator (so fooling it does not reach the discriminator).
    """

    def __init__(self, vae: nn.Module, discriminator: PatchDiscriminator, distance: nn.Module | None = None):
        super().__init__()
        self.vae, self.discriminator, self.distance = vae, discriminator, distance

    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None) -> ContestOutput:
        output = self.vae(x, generator)
        decoded = output.decoded
        frozen = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        return ContestOutput(
            output,
            real=self.discriminator(x),
            fake=self.discriminator(decoded.detach()),
            fooled=functional_call(self.discriminator, frozen, decoded),
            distance=self.distance(decoded, x) if self.distance else torch.zeros(len(x), device=x.device),
            last=self.vae.decoder.conv_out.weight,
        )


def contest_loss(
    model: nn.Module, batch: Batch, generator: torch.Generator, *, beta: float = 1e-6, adversarial: float = 0.5
) -> dict[str, torch.Tensor]:
    """Stable Diffusion's loss per image: Σ (L1 + distance) + beta · KL + weight · fooling, and the discriminator's hinge.

    Sums run over all values of an image in [-1, 1]; adversarial: its share after the adaptive weight, 0 for none.
    Returns {"loss", "reconstruction", "kl", "fooling", "discriminator"}, each (B,).  The weight is that of the part of the
    batch at hand: with accumulation or several processes training is nearly, not exactly, that of the whole batch.
    """
    x = to_signed(batch.images)
    made = model(x, generator)
    error = (made.output.decoded.float() - x).abs().flatten(1)  # (B, D)
    nll = error.sum(1) + error.shape[1] * made.distance.float()
    kl, fooling = made.output.posterior.kl(), -made.fooled.float().flatten(1).mean(1)
    judging = hinge_loss(made.real.float(), made.fake.float())
    loss = nll + beta * kl + judging
    if adversarial:
        loss = loss + adversarial * adaptive_weight(nll.mean(), fooling.mean(), made.last) * fooling
    return {"loss": loss, "reconstruction": nll, "kl": kl, "fooling": fooling, "discriminator": judging}


class PerceptualDistance(nn.Module):
    """How differently VGG16 sees two images (B, 3, H, W) in [-1, 1]: (B,), 0 for equal ones; its weights stay fixed.

    Features after five stages, each position scaled to length 1, squared difference, averaged over positions, summed over
    stages: LPIPS without its learned channel weights.  Zhang et al. 2018, eq. 1; Simonyan & Zisserman 2015.
    """

    STAGES = (3, 8, 15, 22, 29)  # the ReLUs before each pooling
    MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet

    def __init__(self, features: nn.Sequential):
        super().__init__()
        self.features = features[: max(self.STAGES) + 1].requires_grad_(False).eval()
        self.register_buffer("mean", torch.tensor(self.MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(self.STD).view(1, 3, 1, 1))

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        both = (to_unit(torch.cat([a, b])) - self.mean) / self.std
        total = torch.zeros(len(a), device=a.device)
        for number, layer in enumerate(self.features):
            both = layer(both)
            if number in self.STAGES:
                unit = F.normalize(both.float(), dim=1)
                one, other = unit.chunk(2)
                total = total + (one - other).square().sum(1).mean((1, 2))
        return total


def load_perceptual_distance() -> PerceptualDistance:
    """PerceptualDistance with torchvision's ImageNet weights (528 MB, checked); CourseError where they cannot be had."""
    from torchvision.models import VGG16_Weights, vgg16

    before, folder = socket.getdefaulttimeout(), data_dir() / "vgg16"
    socket.setdefaulttimeout(CONNECT_TIMEOUT)
    try:
        with redirect_stderr(StringIO()):  # "Downloading …", also where nothing comes
            state = VGG16_Weights.IMAGENET1K_V1.get_state_dict(
                model_dir=str(folder), progress=False, check_hash=True, weights_only=True
            )
        network = vgg16()
        network.load_state_dict(state)
    except (OSError, RuntimeError, EOFError, IndexError, UnpicklingError) as error:  # no connection; a cut or foreign file
        raise CourseError(
            f"VGG16's weights could not be loaded ({error}): go on with the discriminator alone, or delete "
            "COURSE_DATA/vgg16 and try again."
        ) from error
    finally:
        socket.setdefaulttimeout(before)
        with suppress(OSError):  # it stays where a file is in it
            folder.rmdir()
    return PerceptualDistance(network.features)
