"""The loops that notebooks write by hand: against a gradient step, and against `fit`."""

import copy

import pytest
import torch
from torch import nn

from helpers.data.loader import Batches
from helpers.training import by_hand
from helpers.training.loop import fit


def squares(model, batch, generator):
    """A loss with noise where there is a generator."""
    x = batch["images"]
    noise = torch.randn(len(x), 2, generator=generator) if generator else 0
    return {"loss": (model(x) + noise - 1).square().sum(1)}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_step_follows_the_gradient_of_the_mean_and_forgets_the_last_one(model):
    batch = {"images": torch.randn(5, 3)}
    value = squares(model, batch, None)["loss"].mean()
    gradients = torch.autograd.grad(value, list(model.parameters()))
    wanted = weights(model) - 0.1 * torch.cat([g.flatten() for g in gradients])
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    assert by_hand.training_step(model, optimizer, squares, batch) == pytest.approx(value.item())
    torch.testing.assert_close(weights(model), wanted)


def test_one_batch_is_learned_by_heart(model):
    losses = by_hand.overfit(model, squares, {"images": torch.randn(2, 3)}, steps=200, lr=0.05)
    assert len(losses) == 200 and losses[-1] < 0.01 * losses[0]


def test_an_epoch_by_hand_is_that_of_fit(model):
    data = {"images": torch.randn(20, 3)}
    batches = Batches(data, 4, seed=0)
    mine = copy.deepcopy(model)
    optimizer = torch.optim.Adam(mine.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.01, 2 * len(batches) + 1, pct_start=0.1, cycle_momentum=False
    )
    losses = [
        by_hand.train_epoch(mine, squares, batches, epoch, optimizer, schedule)
        for epoch in range(2)
    ]
    history = fit(model, squares, data, epochs=2, batch_size=4, lr=0.01, precision="no")
    assert losses == pytest.approx(history["loss"], rel=1e-4)
    torch.testing.assert_close(weights(mine), weights(model), rtol=1e-3, atol=1e-5)


def test_the_losses_are_summed_over_an_image():
    x = torch.rand(4, 2, 3, 5)
    each = ((x - 0.5) ** 2).sum(dim=(1, 2, 3))
    torch.testing.assert_close(by_hand.first_loss(x), each)
    torch.testing.assert_close(by_hand.sum_of_squares(torch.full_like(x, 0.5), x), each)


def test_the_weight_of_the_kl_rises_in_a_straight_line_and_stays():
    found = [by_hand.kl_weight(step, 1000) for step in (0, 75, 150, 300, 301, 1000)]
    assert found == pytest.approx([0, 0.25, 0.5, 1, 1, 1])
    assert by_hand.effective_beta(784, 20) == pytest.approx(39.2)
