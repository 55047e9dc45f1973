"""Images too large for a network, tile by tile (notebook 06)."""

from collections.abc import Callable

import torch


def tiled(function: Callable, x: torch.Tensor, side: int, scale: float) -> torch.Tensor:
    """function(x) for an x (B, C, H, W) too large for it: tile by tile, blended where tiles overlap, by a quarter.

    function: (B, C, h, w) → (B, D, h · scale, w · scale).  Norms and attention see their own tile only, so it is not
    quite the same as function(x), and seams may show.
    """
    height, width = (min(side, length) for length in x.shape[2:])
    unit = max(1, round(1 / scale))  # tiles begin where a value of the output begins
    out = weight = None
    for top in _starts(x.shape[2], height, unit):
        for left in _starts(x.shape[3], width, unit):
            tile = function(x[:, :, top : top + height, left : left + width])
            if out is None:
                shape = (*tile.shape[:2], *(round(length * scale) for length in x.shape[2:]))
                out, weight = tile.new_zeros(shape), tile.new_zeros(1, 1, *shape[2:])
            ramp = _ramp(tile.shape[2], tile)[:, None] * _ramp(tile.shape[3], tile)  # (h · scale, w · scale)
            y, x0 = round(top * scale), round(left * scale)
            place = (..., slice(y, y + tile.shape[2]), slice(x0, x0 + tile.shape[3]))
            out[place] += tile * ramp
            weight[place] += ramp
    return out / weight


def _starts(length: int, side: int, unit: int) -> list[int]:
    """Where tiles begin so that they cover `length` and overlap by a quarter; the last one ends where the picture ends."""
    step = max(unit, (side - side // 4) // unit * unit)
    return [*range(0, length - side, step), length - side]


def _ramp(length: int, like: torch.Tensor) -> torch.Tensor:
    """Weights of a tile along one side: rising over a quarter of it, 1 in the middle, falling again."""
    places = torch.arange(1, length + 1, device=like.device, dtype=like.dtype)
    return torch.minimum(places, length + 1 - places).div(max(1, length // 4)).clamp(max=1)
