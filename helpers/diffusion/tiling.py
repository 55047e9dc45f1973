"""Images too large for a network, tile by tile (notebook 9)."""

from collections.abc import Callable

import torch


def tiled(
    function: Callable, x: torch.Tensor, side: int, scale: float, overlap: float = 0.25
) -> torch.Tensor:
    """function(x) for an x (B, C, H, W) that is too large for it.

    It is computed in tiles of `side`, which overlap by that share of it and are blended there.
    function: (B, C, h, w) → (B, D, h · scale, w · scale).  Norms and attention see their own tile
    only, so it is not quite the same as function(x), and seams may show.
    """
    height, width = (min(side, length) for length in x.shape[2:])
    unit = max(1, round(1 / scale))  # tiles begin where a value of the output begins
    total = weight = None
    for top in _starts(x.shape[2], height, unit, overlap):
        for left in _starts(x.shape[3], width, unit, overlap):
            tile = function(x[:, :, top : top + height, left : left + width])
            h, w = tile.shape[2:]
            if total is None:
                shape = (*tile.shape[:2], *(round(length * scale) for length in x.shape[2:]))
                total = torch.zeros(shape, device=x.device)  # float32: bfloat16 counts to 256
                weight = torch.zeros(1, 1, *shape[2:], device=x.device)
            ramp = _ramp(h, overlap, x.device)[:, None] * _ramp(w, overlap, x.device)
            y = round(top * scale)
            x0 = round(left * scale)
            place = (..., slice(y, y + h), slice(x0, x0 + w))
            total[place] += tile * ramp
            weight[place] += ramp
    return (total / weight).to(tile.dtype)


def _starts(length: int, side: int, unit: int, overlap: float) -> list[int]:
    """Where tiles begin so that they cover `length` and overlap by that share of `side`.

    The last one ends where the picture ends, and may overlap by more.
    """
    step = max(unit, (side - int(side * overlap)) // unit * unit)
    return [*range(0, length - side, step), length - side]


def _ramp(length: int, overlap: float, device: torch.device) -> torch.Tensor:
    """Weights of a tile along one side: rising over the overlap, then 1, then falling."""
    places = torch.arange(1, length + 1, device=device, dtype=torch.float32)
    width = max(1, int(length * overlap))
    return torch.minimum(places, length + 1 - places).div(width).clamp(max=1)
