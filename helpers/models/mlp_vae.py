"""The autoencoder and the variational autoencoder of fully connected layers (notebooks 1 and 2).

Images are (B, 1, 28, 28) in [0, 1]; `decode` returns logits, whose sigmoid is the image.
"""

from typing import NamedTuple

import torch
from torch import nn

from helpers.models.distributions import DiagonalGaussian, VAEOutput


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers sizes[0] → sizes[1] → …, a ReLU between each two and none after the last."""
    layers = [nn.Linear(sizes[0], sizes[1])]
    for inputs, outputs in zip(sizes[1:-1], sizes[2:], strict=True):
        layers += [nn.ReLU(), nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers)


class AutoencoderOutput(NamedTuple):
    """What `Autoencoder.forward` returns: logits (B, 1, 28, 28) and the code (B, latent)."""

    decoded: torch.Tensor
    z: torch.Tensor


class Autoencoder(nn.Module):
    """784 pixels → `hidden` → a code of `latent` dimensions → `hidden` reversed → 784 logits."""

    def __init__(self, latent: int = 2, hidden: tuple[int, ...] = (512, 256)):
        super().__init__()
        self.config = {"latent": latent, "hidden": list(hidden)}
        self.encoder = mlp(784, *hidden, latent)
        self.decoder = mlp(latent, *reversed(hidden), 784)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x.flatten(1))  # (B, 1, 28, 28) → (B, 784) → (B, latent)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(z).unflatten(1, (1, 28, 28))  # (B, latent) → (B, 784) → (B, 1, 28, 28)

    def forward(
        self, x: torch.Tensor, generator: torch.Generator | None = None
    ) -> AutoencoderOutput:
        z = self.encode(x)
        return AutoencoderOutput(self.decode(z), z)


class MLPVAE(nn.Module):
    """The same network with an encoder that outputs a distribution.

    Its last layer has 2 · `latent` outputs, means and log-variances.
    Kingma & Welling 2014, appendix C.
    """

    def __init__(self, latent: int = 2, hidden: tuple[int, ...] = (512, 256)):
        super().__init__()
        self.config = {"latent": latent, "hidden": list(hidden)}
        self.encoder = mlp(784, *hidden, 2 * latent)
        self.decoder = mlp(latent, *reversed(hidden), 784)

    def encode(self, x: torch.Tensor) -> DiagonalGaussian:
        moments = self.encoder(x.flatten(1))  # (B, 784) → (B, 2·latent)
        mean, logvar = moments.chunk(2, dim=1)  # 2 × (B, latent)
        return DiagonalGaussian(mean, logvar)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(z).unflatten(1, (1, 28, 28))  # (B, latent) → (B, 784) → (B, 1, 28, 28)

    def forward(self, x: torch.Tensor, generator: torch.Generator | None = None) -> VAEOutput:
        posterior = self.encode(x)
        z = posterior.sample(generator)
        return VAEOutput(self.decode(z), posterior, z)
