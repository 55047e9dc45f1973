"""The course's own recipe for dogs, and the small network that a deep one has to beat."""

from collections.abc import Callable
from functools import partial

from torch import nn

from helpers.data.augment import random_flip
from helpers.data.image_set import ImageSet
from helpers.metrics.images import BlockPCA
from helpers.models.blocks import LinearShortcut
from helpers.models.conv_vae import ConvVAE, VAEConfig, image_loss
from helpers.models.distributions import DiagonalGaussian, VAEOutput
from helpers.rng import seed_everything
from helpers.training.loop import fit


def course_model(seed: int, *, factor: int, **fields) -> ConvVAE:
    """A fresh ConvVAE of VAEConfig.course(factor), other fields replaced."""
    seed_everything(seed)
    return ConvVAE(VAEConfig.course(factor), **fields)


def photo_model(seed: int, train: ImageSet, factor: int, latent: int = 4, **fields) -> ConvVAE:
    """A fresh ConvVAE of VAEConfig.photos, other fields replaced; it begins as block PCA."""
    seed_everything(seed)
    model = ConvVAE(VAEConfig.photos(factor, latent), **fields)
    return begun(model, train) if model.linear else model


def begun(model: nn.Module, train: ImageSet) -> nn.Module:
    """`model`, whose linear shortcut becomes block PCA of the training images."""
    return model.start_as(BlockPCA(train, model.config.factor, model.config.latent_channels))


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

    (B, 3, H, W) in [0, 1] → (B, 4, H/factor, W/factor) and back.  shortcut: with the linear one
    beside it.
    """

    start_as = ConvVAE.start_as

    def __init__(self, factor: int, shortcut: bool = False):
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
        self.linear = LinearShortcut(factor, 4) if shortcut else None
        if shortcut:  # and the network as little, as in ConvVAE
            last.weight.data[:4] *= 0.1
            nn.init.zeros_(self.decoder[-1].weight)
            nn.init.zeros_(self.decoder[-1].bias)

    def encode(self, x):
        pixels = 2 * x - 1
        mean, logvar = self.encoder(pixels).chunk(2, dim=1)
        return DiagonalGaussian(mean + self.linear.encode(pixels) if self.linear else mean, logvar)

    def decode(self, z):
        decoded = self.decoder(z)
        return ((decoded + self.linear.decode(z) if self.linear else decoded) + 1) / 2

    def forward(self, x, generator=None):
        posterior = self.encode(x)
        z = posterior.sample(generator)
        return VAEOutput(self.decode(z), posterior, z)
