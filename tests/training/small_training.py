"""A training run of less than a second, for the tests of `fit` and the processes they start."""

import torch
import torch.nn.functional as F
from torch import nn

from helpers.data.image_set import ImageSet
from helpers.models.losses import negative_elbo
from helpers.models.mlp_vae import MLPVAE
from helpers.training.history import History
from helpers.training.loop import fit

STEPS_PER_EPOCH = 6


def squares(count: int = 100, seed: int = 0) -> ImageSet:
    """Bright squares on black, (count, 1, 28, 28).

    The label says in which quarter of the picture the square is.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(count, 1, 28, 28, dtype=torch.uint8)
    corners = torch.randint(0, 20, (count, 2), generator=generator)
    for image, (y, x) in zip(images, corners.tolist(), strict=True):
        image[0, y : y + 8, x : x + 8] = 200
    labels = (corners[:, 0] >= 10) * 2 + (corners[:, 1] >= 10).long()
    return ImageSet(images, labels, "drawn squares")


class DropoutVAE(MLPVAE):
    """Draws from torch's global generator too."""

    def encode(self, x):
        return super().encode(F.dropout(x, 0.2, self.training))


def small_model(kind: type[MLPVAE] = MLPVAE, seed: int = 1) -> MLPVAE:
    torch.manual_seed(seed)
    return kind(2, (16,))


def vae_loss(model, batch: dict, generator: torch.Generator) -> dict[str, torch.Tensor]:
    return negative_elbo(model(batch["images"], generator), batch["images"])


def small_fit(model, loss=vae_loss, data=None, **options) -> History:
    """`fit` in float32: three epochs of six batches unless said otherwise."""
    data = squares() if data is None else data
    defaults = {"epochs": 3, "batch_size": 16, "precision": "no"}
    return fit(model, loss, data, **(defaults | options))


def equal(one: nn.Module, other: nn.Module) -> bool:
    """The same weights, bit for bit."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def timeless(rows: list[dict]) -> list[dict]:
    """A history's rows without the seconds, which no two runs share."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
