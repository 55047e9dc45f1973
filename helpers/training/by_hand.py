"""Training as notebooks 1 to 3 write it by hand; `helpers.training.loop` has what a run needs."""

import torch
from torch import nn

from helpers.data.loader import Batches
from helpers.rng import generator_for
from helpers.training.trainer import Loss


def sum_of_squares(image: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Squared error summed over the pixels of each image, both (B, ...) → (B,)."""
    return (image - x).square().flatten(1).sum(1)


def first_loss(x: torch.Tensor) -> torch.Tensor:
    """The `sum_of_squares` of an untrained network, which answers ½ everywhere: (B, ...) → (B,)."""
    return (0.5 - x).square().flatten(1).sum(1)


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss, batch: dict[str, torch.Tensor]
) -> float:
    """Change the weights once; the mean loss of the batch before the change."""
    optimizer.zero_grad()
    value = loss(model, batch, None)["loss"].mean()
    value.backward()
    optimizer.step()
    return value.item()


def overfit(
    model: nn.Module, loss: Loss, batch: dict[str, torch.Tensor], steps: int, lr: float
) -> list[float]:
    """The losses of `steps` steps of Adam on one and the same batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    return [training_step(model, optimizer, loss, batch) for _ in range(steps)]


def train_epoch(
    model: nn.Module,
    loss: Loss,
    batches: Batches,
    epoch: int,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """One pass over all batches, as `fit` makes it; the mean of the batches' losses."""
    total = 0.0
    for step, batch in enumerate(batches.epoch(epoch)):
        generator = generator_for("noise", batches.seed, epoch, step, device=batches.device)
        optimizer.zero_grad()
        terms = loss(model, batch, generator)  # {"loss": (B,), …}
        value = terms["loss"].mean()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += value.item()
    return total / len(batches)


def effective_beta(pixels: int, latents: int) -> float:
    """The β of a mean over pixels plus a mean over latent dimensions."""
    return pixels / latents


def kl_weight(step: int, total: int) -> float:
    """KL warm-up: from 0 to 1 in a straight line over the first 30 % of the steps, then 1.

    Bowman et al., CoNLL 2016.
    """
    return min(1.0, step / (0.3 * total))
