"""tiled: pictures in pieces."""

import pytest
import torch
import torch.nn.functional as F

from helpers.diffusion.tiling import tiled


def double(x):
    return F.interpolate(x, scale_factor=2.0)


@pytest.mark.parametrize("size", [(16, 16), (16, 40), (40, 16), (39, 53), (17, 100)])
def test_what_works_on_each_pixel_alone_is_the_same_in_tiles(size):
    x = torch.rand(2, 3, *size)
    torch.testing.assert_close(tiled(double, x, 16, 2), double(x))


@pytest.mark.parametrize("side", [16, 24, 40])
def test_shrinking_tiles_begin_where_an_output_begins(side):
    x = torch.rand(1, 3, 64, 96)
    found = tiled(lambda t: F.avg_pool2d(t, 8), x, side, 1 / 8)
    torch.testing.assert_close(found, F.avg_pool2d(x, 8))


def test_every_tile_has_at_most_the_side():
    seen = []
    tiled(lambda t: seen.append(tuple(t.shape[2:])) or t, torch.rand(1, 1, 40, 70), 16, 1)
    assert set(seen) == {(16, 16)} and len(seen) == 3 * 6


def test_overlaps_are_blended():
    """Each tile answers with its number: between two of them it changes little by little."""
    numbers = iter(range(100))

    def number(tile: torch.Tensor) -> torch.Tensor:
        return torch.full_like(tile, float(next(numbers)))

    out = tiled(number, torch.zeros(1, 1, 16, 28), 16, 1)[0, 0, 8]
    assert out[0] == 0 and out[-1] == 1
    steps = out.diff()
    assert (steps >= 0).all() and steps.max() < 0.35 and (steps > 0).sum() >= 4


def test_gradients_reach_the_input():
    x = torch.rand(1, 1, 20, 36, requires_grad=True)
    tiled(lambda t: t**2, x, 16, 1).sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())


@pytest.mark.parametrize("side", [256, 512, 1024])
def test_weights_are_counted_beyond_what_bfloat16_can_count(side):
    x = torch.rand(1, 1, 1, side + side // 2, dtype=torch.bfloat16)
    out = tiled(lambda t: t, x, side, 1)
    assert out.dtype == x.dtype
    torch.testing.assert_close(out, x)


def test_overlap_is_a_share_of_the_side():
    starts = {}
    for overlap in (0.0, 0.25, 0.5):
        seen = []
        tiled(lambda t, seen=seen: seen.append(1) or t, torch.rand(1, 1, 16, 64), 16, 1, overlap)
        starts[overlap] = len(seen)
    assert starts == {0.0: 4, 0.25: 5, 0.5: 7}
