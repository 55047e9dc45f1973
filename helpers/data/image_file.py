"""One image file: how it is read, and why it cannot be."""

import functools
import math
import os
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"}
IMAGE_SUFFIXES |= {".pbm", ".pgm", ".pnm", ".ppm"}
# read where Pillow can, with a plug-in perhaps; the second line are cameras' own formats
RARE_SUFFIXES = {".avif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".psd", ".svg"}
RARE_SUFFIXES |= {".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"}
PLUGINS = {".heic": "pillow-heif", ".heif": "pillow-heif"}  # what reads them where Pillow cannot
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class ImageFile(NamedTuple):
    """name: relative to the folder, with slashes on every system; digest: the MD5 of its bytes."""

    name: str
    path: Path
    digest: str


def image_or_reason(path: Path, resolution: int) -> torch.Tensor | str:
    """One file as uint8 (3, resolution, resolution), or the reason why it cannot be read.

    The short side is resized and the middle cropped; `load_image_folder` says what is converted.
    Call it inside `quiet`.
    """
    try:
        return _read(path, resolution)
    except Exception as error:  # Pillow's readers fail in many ways on broken files
        return reason_of(error)


def reason_of(error: Exception) -> str:
    """What went wrong, on one line and without the path."""
    if isinstance(error, UnidentifiedImageError):
        return "no known image format"  # Pillow's own sentence shows an object in memory
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


def open_file(path: Path) -> BinaryIO:
    """`open(path, "rb")` for regular files: opening a pipe would wait forever."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("no regular file")
    return open(path, "rb")


def begins_like_an_image(path: Path) -> bool:
    """For a file whose name does not say what it is.  Call it inside `quiet`."""
    try:
        with open_file(path) as file, Image.open(file, formats=_formats("")):
            return True
    except BOMBS:
        return True  # reading it will say why not
    except Exception:
        return False


def _read(path: Path, resolution: int) -> torch.Tensor:
    formats = _formats(path.suffix.lower())
    with open_file(path) as file, _open(file, formats, side=2 * resolution) as image:
        image.load()
        with suppress(Exception):  # a broken EXIF block is no reason to skip a good photo
            ImageOps.exif_transpose(image, in_place=True)
        if min(image.size) < 2:
            raise ValueError(f"only {image.width}×{image.height} pixels")
        image = _on_white(_in_8_bits(image)).convert("RGB")
        # bilinear and antialiased, as torchvision resizes
        image = ImageOps.fit(image, (resolution, resolution), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(image)).movedim(2, 0)  # (H, W, 3) → (3, H, W)


def _open(file: BinaryIO, formats: list[str], side: int) -> Image.Image:
    """An image that is not decoded yet; a large JPEG will be at 1/2, 1/4 or 1/8, down to `side`.

    Pillow refuses files of more than 89 million pixels.  Phones make larger JPEGs, and decoded
    small they are harmless, unless they are progressive: those are unpacked whole.
    """
    try:
        image = Image.open(file, formats=formats)
        image.draft(None, (side, side))
        return image
    except BOMBS:
        file.seek(0)
        if file.read(3) != b"\xff\xd8\xff":
            raise
        file.seek(0)
        image = JpegImageFile(file)  # without a look at the size
        whole = math.prod(image.size)
        image.draft(None, (side, side))
        limit = Image.MAX_IMAGE_PIXELS
        if "progressive" in image.info or whole > 4 * limit or math.prod(image.size) > limit:
            raise
        return image


def _formats(suffix: str) -> list[str]:
    """The formats of images, whichever suffix a file has, since suffixes lie.

    Pillow opens others too, and some of those are programs.
    """
    _register_plugins()
    suffixes = IMAGE_SUFFIXES | RARE_SUFFIXES
    known = {s: name for s, name in Image.registered_extensions().items() if s in suffixes}
    if suffix and suffix not in known:
        plugin = PLUGINS.get(suffix)
        raise ValueError("unsupported format" + (f": pip install {plugin}" if plugin else ""))
    return sorted(set(known.values()))


@functools.cache
def _register_plugins() -> None:
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()


def _in_8_bits(image: Image.Image) -> Image.Image:
    """An image of 16 or more bits, or of fractions, scaled: Pillow would cut it off at 255."""
    if not image.mode.startswith("I") and image.mode != "F":
        return image
    values = np.asarray(image, dtype=np.float32)
    highest = values[np.isfinite(values)].max(initial=0)
    top = 65535.0 if image.mode.startswith("I;16") or highest > 255 else 255.0
    if image.mode == "F" and highest <= 1:
        top = 1.0
    scaled = np.nan_to_num(values).clip(0, top) * (255 / top)
    return Image.fromarray(scaled.round().astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


@contextmanager
def quiet():
    """Silence Pillow's warnings of broken EXIF blocks and the like.

    A suspected decompression bomb is an error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def in_threads(function: Callable, items: Iterable) -> Iterator:
    """map(function, items) on all cores: Pillow decodes outside Python's lock."""
    with ThreadPoolExecutor(CORES) as pool:
        yield from pool.map(function, items)
