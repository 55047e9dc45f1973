"""The exponential moving average of weights."""

import pytest
import torch
from torch import nn

from helpers.training.ema import EMA


def test_it_begins_with_the_first_weights_it_sees_and_is_the_average_of_the_formula():
    model = nn.Linear(1, 1, bias=False)
    ema = EMA(model, decay=0.2)
    expected = None
    for n, value in enumerate([5.0, -2.0, 7.0, 1.0]):
        nn.init.constant_(model.weight, value)
        ema.update_parameters(model)
        decay = min(0.2, (1 + n) / (10 + n))  # 2/11, then 0.2
        expected = value if n == 0 else decay * expected + (1 - decay) * value
        assert ema.module.weight.item() == pytest.approx(expected)


def test_a_state_that_was_saved_goes_on_with_the_warm_up():
    model = nn.Linear(2, 2)
    ema = EMA(model, decay=0.99)
    for _ in range(3):
        ema.update_parameters(model)
    again = EMA(nn.Linear(2, 2), decay=0.99)
    again.load_state_dict(ema.state_dict())
    with torch.no_grad():
        model.weight += 1
    ema.update_parameters(model)
    again.update_parameters(model)
    assert torch.equal(ema.module.weight, again.module.weight)
    assert not torch.equal(ema.module.weight, model.weight)


class Counting(nn.BatchNorm1d):
    """Averages of the batches, their number, and a mask that is no number."""

    def __init__(self):
        super().__init__(2)
        self.register_buffer("mask", torch.tensor([True, False]))


def test_buffers_are_averaged_and_counters_copied():
    model = Counting()
    ema = EMA(model, decay=0.9)
    seen = []
    for number in range(1, 4):
        model(torch.full((4, 2), float(number)))
        model.mask.logical_not_()
        ema.update_parameters(model)
        seen.append(model.running_mean.clone())
        assert int(ema.module.num_batches_tracked) == number
        assert torch.equal(ema.module.mask, model.mask)
    first = seen[0].lerp(seen[1], 9 / 11)
    torch.testing.assert_close(ema.module.running_mean, first.lerp(seen[2], 9 / 12))


def test_swapped_in_ends_also_after_an_error():
    model = nn.Linear(2, 2)
    ema = EMA(model, decay=0.5)
    own = model.weight.detach().clone()
    with torch.no_grad():
        ema.module.weight += 1
    with pytest.raises(ValueError, match="mine"), ema.swapped_in(model):
        assert torch.equal(model.weight, own + 1)
        raise ValueError("mine")
    assert torch.equal(model.weight, own) and torch.equal(ema.module.weight, own + 1)
