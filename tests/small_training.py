"""A training run of less than a second, for the tests of `fit` and for the processes that they start."""

import torch
import torch.nn.functional as F

from helpers.data import Batch, ImageSet
from helpers.losses import negative_elbo
from helpers.mlp import MLPVAE
from helpers.training import fit

STEPS_PER_EPOCH = 6


def squares(count: int = 100, seed: int = 0) -> ImageSet:
    """Bright squares on black, (count, 1, 28, 28); the label says in which quarter of the picture they are."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(count, 1, 28, 28, dtype=torch.uint8)
    corners = torch.randint(0, 20, (count, 2), generator=generator)
    for image, (y, x) in zip(images, corners.tolist(), strict=True):
        image[0, y : y + 8, x : x + 8] = 200
    return ImageSet(images, (corners[:, 0] >= 10) * 2 + (corners[:, 1] >= 10).long(), "drawn squares")


class DropoutVAE(MLPVAE):
    """Draws from torch's global generator too."""

    def encode(self, x):
        return super().encode(F.dropout(x, 0.2, self.training))


def small_model(kind: type[MLPVAE] = MLPVAE, seed: int = 1) -> MLPVAE:
    torch.manual_seed(seed)
    return kind(2, (16,))


def vae_loss(model, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
    return negative_elbo(model(batch.images, generator), batch.images)


def small_fit(model, loss=vae_loss, data: ImageSet | None = None, **options):
    """`fit` in fp32: three epochs of six batches unless said otherwise."""
    data = squares() if data is None else data
    return fit(model, loss, data, **({"epochs": 3, "batch_size": 16, "precision": "no"} | options))
