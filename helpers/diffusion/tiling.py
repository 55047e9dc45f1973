"""Images too large for a network, tile by tile (notebook 9)."""

from collections.abc import Callable

import torch


def tiled(function: Callable, x: torch.Tensor, side: int, scale: float) -> torch.Tensor:
    """function(x) for an x (B, C, H, W) that is too large for it.

    It is computed in tiles of `side`, which overlap by a quarter and are blended there.
    function: (B, C, h, w) → (B, D, h · scale, w · scale).  Norms and attention see their own tile
    only, so it is not quite the same as function(x), and seams may show.
    """
    height, width = (min(side, length) for length in x.shape[2:])
    unit = max(1, round(1 / scale))  # tiles begin where a value of the output begins
    total = weight = None
    for top in _starts(x.shape[2], height, unit):
        for left in _starts(x.shape[3], width, unit):
            tile = function(x[:, :, top : top + height, left : left + width])
            h, w = tile.shape[2:]
            if total is None:
                shape = (*tile.shape[:2], *(round(length * scale) for length in x.shape[2:]))
                total = tile.new_zeros(shape)
                weight = tile.new_zeros(1, 1, *shape[2:])
            ramp = _ramp(h, tile)[:, None] * _ramp(w, tile)  # (h · scale, w · scale)
            y = round(top * scale)
            x0 = round(left * scale)
            place = (..., slice(y, y + h), slice(x0, x0 + w))
            total[place] += tile * ramp
            weight[place] += ramp
    return total / weight


def _starts(length: int, side: int, unit: int) -> list[int]:
    """Where tiles begin so that they cover `length` and overlap by a quarter.

    The last one ends where the picture ends, and may overlap by more.
    """
    step = max(unit, (side - side // 4) // unit * unit)
    return [*range(0, length - side, step), length - side]


def _ramp(length: int, like: torch.Tensor) -> torch.Tensor:
    """Weights of a tile along one side: rising over a quarter of it, then 1, then falling."""
    places = torch.arange(1, length + 1, device=like.device, dtype=like.dtype)
    return torch.minimum(places, length + 1 - places).div(max(1, length // 4)).clamp(max=1)
