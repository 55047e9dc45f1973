"""Random changes of a batch of images (B, C, H, W) in [0, 1], drawn on its device."""

import torch
import torch.nn.functional as F

from helpers import CourseError
from helpers.rng import draw


def random_flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror each image left-right with probability 1/2."""
    shape = (len(images), 1, 1, 1)
    mirrored = draw(torch.rand, shape, generator, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(3), images)


def random_shift(images: torch.Tensor, generator: torch.Generator, pixels: int = 2) -> torch.Tensor:
    """Move each image by up to `pixels` in both directions; what comes in is black."""
    b, _, h, w = images.shape
    on = images.device
    shift = (
        draw(torch.rand, (b, 2), generator, device=on).mul(2 * pixels + 1).long()
    )  # 0 … 2·pixels
    rows = shift[:, :1] + torch.arange(h, device=on)  # (B, H)
    columns = shift[:, 1:] + torch.arange(w, device=on)  # (B, W)
    padded = F.pad(images, (pixels,) * 4).movedim(1, 3)  # (B, H+2p, W+2p, C)
    one = torch.arange(b, device=on)
    picked = padded[one[:, None, None], rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    return picked.movedim(3, 1)  # (B, C, H, W)


def random_crop(images: torch.Tensor, generator: torch.Generator, size: int) -> torch.Tensor:
    """A square of `size` pixels out of each image, at a place of its own: (B, C, size, size)."""
    b, c, h, w = images.shape
    on = images.device
    if not 0 < size <= min(h, w):
        raise CourseError(
            f"A square of {size} pixels cannot be cut out of images of {h}×{w}: load larger ones."
        )
    places = draw(torch.rand, (b, 2), generator, device=on)
    within = torch.arange(size, device=on)
    rows = places[:, :1].mul(h - size + 1).long() + within  # (B, size)
    columns = places[:, 1:].mul(w - size + 1).long() + within  # (B, size)
    one = torch.arange(b, device=on)[:, None, None, None]
    channel = torch.arange(c, device=on)[:, None, None]
    return images[one, channel, rows[:, None, :, None], columns[:, None, None, :]]


def crop_and_flip(images: torch.Tensor, generator: torch.Generator, size: int) -> torch.Tensor:
    """`random_crop` to `size` pixels, then `random_flip`."""
    return random_flip(random_crop(images, generator, size), generator)


def blur_and_grain(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Half of the pictures softened, all with a little noise, as decoders make them."""
    b, _, h, w = images.shape
    on = images.device
    small = F.interpolate(images, scale_factor=0.5, mode="area")
    soft = F.interpolate(small, size=(h, w), mode="bilinear")
    softened = draw(torch.rand, (b, 1, 1, 1), generator, device=on) < 0.5
    images = torch.where(softened, soft, images)
    grain = draw(torch.randn, tuple(images.shape), generator, device=on)
    strength = 0.05 * draw(torch.rand, (b, 1, 1, 1), generator, device=on)
    return (images + strength * grain).clamp(0, 1)


def add_gaussian_noise(
    x: torch.Tensor, sigma: float, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Images in [0, 1] plus normal noise of that spread in every pixel, cut to [0, 1] again."""
    noise = torch.randn(x.shape, generator=generator, device=x.device)
    return (x + sigma * noise).clamp(0, 1)
