"""The course's own recipe for dogs, and the small network that a deep one has to beat."""

from collections.abc import Callable
from functools import partial

from torch import nn

from helpers.data.augment import random_flip
from helpers.data.image_set import ImageSet
from helpers.models.conv_vae import ConvVAE, VAEConfig, image_loss
from helpers.models.distributions import DiagonalGaussian, VAEOutput
from helpers.rng import seed_everything
from helpers.training.loop import fit


def course_model(seed: int, *, factor: int, **fields) -> ConvVAE:
    """A fresh ConvVAE of VAEConfig.course(factor), other fields replaced."""
    seed_everything(seed)
    return ConvVAE(VAEConfig.course(factor), **fields)


def counting_flip() -> tuple[Callable, list[int]]:
    """(`random_flip` for `fit`, a list to which it appends the size of every batch)."""
    seen: list[int] = []

    def augment(images, generator):
        seen.append(len(images))
        return random_flip(images, generator)

    return augment, seen


def train_ours(train: ImageSet, seed: int, model: nn.Module, **length) -> tuple[nn.Module, int]:
    """(model, images seen) of the course's recipe: that of `helpers.train_vae --ema 0`.

    length: minutes=… or steps=…
    """
    augment, seen = counting_flip()
    loss = partial(image_loss, beta=0.1)
    fit(model, loss, train, batch_size=8, lr=3e-3, augment=augment, seed=seed, **length)
    return model, sum(seen)


class SmallVAE(nn.Module):
    """One convolution for each halving, as a VAE; notebook 8 has it.

    (B, 3, H, W) in [0, 1] → (B, 4, H/factor, W/factor) and back.
    """

    def __init__(self, factor: int):
        super().__init__()
        self.config = VAEConfig.course(factor)
        widths = [3] + [32] * (factor.bit_length() - 2)  # f4: 3, 32; f8: 3, 32, 32
        pairs = list(zip(widths, widths[1:], strict=False))
        down, up = [], []
        for a, b in pairs:
            down += [nn.Conv2d(a, b, 4, stride=2, padding=1), nn.ReLU()]
        for a, b in reversed(pairs):
            up += [nn.ReLU(), nn.ConvTranspose2d(b, a, 4, stride=2, padding=1)]
        last = nn.Conv2d(widths[-1], 8, 4, stride=2, padding=1)
        first = nn.ConvTranspose2d(4, widths[-1], 4, stride=2, padding=1)
        self.encoder = nn.Sequential(*down, last)
        self.decoder = nn.Sequential(first, *up)
        nn.init.constant_(last.bias[4:], -6.0)  # posteriors begin narrow, as in ConvVAE

    def encode(self, x):
        mean, logvar = self.encoder(2 * x - 1).chunk(2, dim=1)
        return DiagonalGaussian(mean, logvar)

    def decode(self, z):
        return (self.decoder(z) + 1) / 2

    def forward(self, x, generator=None):
        posterior = self.encode(x)
        z = posterior.sample(generator)
        return VAEOutput(self.decode(z), posterior, z)
