"""The checks of random answers: normal noise passes, and each fault has its sentence."""

import pytest
import torch

from helpers.exercises.check import Rejected
from helpers.exercises.noise import expect_generator, expect_normal
from helpers.rng import generator_for

AXES = ("images", "rows", "columns")
SENTENCES = ("off by {}", "spread {}")


def noise() -> torch.Tensor:
    return torch.randn(60, 20, 30, generator=generator_for("noise"))


def moving_mean(axis: int) -> torch.Tensor:
    """Noise whose neighbours along an axis share half of their numbers."""
    z = noise()
    return (z + z.roll(1, axis)) / 2**0.5


def test_normal_noise_passes():
    expect_normal(noise(), AXES, *SENTENCES)
    expect_generator(lambda g: torch.randn(5, generator=g))


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (lambda: noise()[:1].expand(60, 20, 30), "All images got the same noise"),
        (lambda: noise()[:, :1].expand(60, 20, 30), "All rows got the same noise"),
        (lambda: noise()[:, :, :1].expand(60, 20, 30), "All columns got the same noise"),
        (lambda: noise() + 0.1, r"off by 0\.1"),
        (lambda: 1.1 * noise(), r"spread 1\.1"),
        (lambda: noise().sign(), "not a normal distribution"),
        (lambda: moving_mean(0), "neighbouring images goes together"),
        (lambda: moving_mean(2), "neighbouring columns goes together"),
    ],
)
def test_a_fault_is_named(made, sentence):
    with pytest.raises(Rejected, match=sentence):
        expect_normal(made(), AXES, *SENTENCES)


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (lambda g: torch.randn(5), "given the same one twice"),
        (lambda g: torch.randn(5, generator=generator_for(0)), "another one changes nothing"),
    ],
)
def test_a_generator_that_is_ignored_is_seen(draw, sentence):
    with pytest.raises(Rejected, match=sentence):
        expect_generator(draw)
