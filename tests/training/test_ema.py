"""The exponential moving average of weights."""

import pytest
import torch
from torch import nn

from helpers.training.ema import EMA


def test_it_is_the_average_of_the_formula():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average, expected = EMA(model, decay=0.15), 1.0
    for step, value in enumerate([5.0, -2.0, 7.0]):
        nn.init.constant_(model.weight, value)
        average.update(model)
        decay = min(0.15, (1 + step) / (10 + step))  # 0.1, then 0.15
        expected = decay * expected + (1 - decay) * value
        assert average.weights["weight"].item() == pytest.approx(expected)


def test_counters_are_copied():
    model = nn.BatchNorm1d(2)
    average = EMA(model, decay=0.9)
    model(torch.rand(4, 2))
    average.update(model)
    assert int(average.weights["num_batches_tracked"]) == 1


def test_inside_is_left_again_also_after_an_error():
    model = nn.Linear(2, 2)
    average, own = EMA(model, decay=0.5), model.weight.detach().clone()
    average.weights["weight"] = own + 1
    with pytest.raises(ValueError, match="mine"), average.inside(model):
        assert torch.equal(model.weight, own + 1)
        raise ValueError("mine")
    assert torch.equal(model.weight, own) and torch.equal(average.weights["weight"], own + 1)
