"""Images in files: which of them a folder holds, which of those can be read, and how one is read."""

import hashlib
import math
import os
import stat
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch.utils.data import get_worker_info

from helpers import CourseError

MEMORY_LIMIT = 4 * 2**30  # bytes; a set with more pixels than that stays in its files
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"}
RARE_SUFFIXES = {".avif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".psd", ".svg"}  # read where Pillow can
RARE_SUFFIXES |= {".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2"}  # cameras' own formats


class ImageFile(NamedTuple):
    """name: relative to the folder, with slashes on every system; digest: the MD5 of its bytes."""

    name: str
    path: Path
    digest: str


class Found(NamedTuple):
    """What `read_folder` found: the readable files, and their images where memory holds them (`MEMORY_LIMIT`).

    images: uint8 (N, 3, R, R), or None.  skipped: (name, reason).  duplicates: how many files had the bytes of another.
    """

    files: tuple[ImageFile, ...]
    images: torch.Tensor | None
    skipped: tuple[tuple[str, str], ...]
    duplicates: int


def check_resolution(resolution: int) -> None:
    """CourseError unless it is a number of pixels."""
    if not isinstance(resolution, int) or resolution < 1:
        raise CourseError(f"resolution is {resolution!r}; it is a whole number of pixels, such as 128.")


def split_of(name: str) -> str:
    """The name alone decides: "train" for about 85 % of all files, "validation" for 5 %, "test" for 10 %."""
    share = int.from_bytes(hashlib.md5(name.encode()).digest()[:8], "big") / 2**64
    return "train" if share < 0.85 else "validation" if share < 0.9 else "test"


def read_folder(folder: Path, resolution: int, split: str | None = None) -> Found:
    """The images below `folder`, or those of one split, sorted by name; prints which files were skipped, and why.

    Files with equal bytes are one image, under the first of their names.  Each image is decoded once, so that a
    broken one shows here and not in the middle of a training.  CourseError where no image is left.
    """
    if not folder.is_dir():
        raise CourseError(f"{folder} is not a folder; one with images was expected ({_suffixes()}).")
    files, skipped = _find(folder)
    groups = [group for group in _by_content(files) if split in (None, split_of(group[0].name))]
    skipped = [(name, why) for name, why in skipped if split in (None, split_of(name))]
    total = sum(map(len, groups)) + len(skipped)
    good, images, broken = _read_groups(groups, resolution)
    skipped = sorted(skipped + broken)
    if not good:
        raise CourseError(f"{folder}: {_fault(len(files), total, split, skipped)}; expected {_suffixes()}.")
    if skipped:
        print(f"{len(skipped)} of {total} files skipped: {_listed(skipped)}")
    return Found(tuple(group[0] for group in good), images, tuple(skipped), sum(map(len, good)) - len(good))


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))


def _fault(files: int, total: int, split: str | None, skipped: list[tuple[str, str]]) -> str:
    reason = f" (the first: {skipped[0][0]}: {skipped[0][1]})" if skipped else ""
    if not total and files:
        return f"none of its {files} image files falls into the {split} split, which needs more of them"
    return f"none of its {total} image files can be read{reason}" if total else "it holds no image files"


def _listed(skipped: list[tuple[str, str]], most: int = 10) -> str:
    shown = [" ".join(f"{name} ({why})".split()) for name, why in skipped[:most]]
    return "; ".join(shown) + (f"; … and {len(skipped) - most} more" if len(skipped) > most else "")


def _find(folder: Path) -> tuple[list[ImageFile], list[tuple[str, str]]]:
    """All files below `folder` whose suffix is an image's, by name; (name, reason) of the folders that are closed."""

    def name(path: Path) -> str:
        text = os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "replace")  # Linux takes any bytes
        return unicodedata.normalize("NFC", text)  # an é is one letter, or two (macOS)

    faults: list[OSError] = []
    paths = [Path(parent, file) for parent, _, files in os.walk(folder, onerror=faults.append) for file in files]
    paths = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES | RARE_SUFFIXES]
    found = [ImageFile(name(path), path, digest) for path, digest in zip(paths, in_threads(_digest, paths))]
    return sorted(found), [(name(Path(fault.filename)), _reason(fault)) for fault in faults]


def _digest(path: Path) -> str:
    try:
        with _open(path) as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except OSError:  # reading it will say what is wrong; until then it equals no other file
        return str(path)


def _open(path: Path) -> BinaryIO:
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("no regular file")  # opening a pipe would wait forever
    return open(path, "rb")


def _by_content(files: list[ImageFile]) -> list[list[ImageFile]]:
    """The files in groups of equal bytes."""
    groups: dict[str, list[ImageFile]] = {}
    for file in files:
        groups.setdefault(file.digest, []).append(file)
    return list(groups.values())


def _read_groups(groups: list[list[ImageFile]], resolution: int) -> tuple[list, torch.Tensor | None, list]:
    """(groups that are an image, these images or None, (name, reason) of all other files)."""
    shape = (len(groups), 3, resolution, resolution)
    images = torch.empty(shape, dtype=torch.uint8) if math.prod(shape) <= MEMORY_LIMIT else None
    good, broken = [], []
    outcomes = in_threads(partial(image_or_reason, resolution=resolution), [group[0].path for group in groups])
    with quiet():
        for group, outcome in zip(groups, outcomes):
            if isinstance(outcome, str):
                broken += [(file.name, outcome) for file in group]
                continue
            if images is not None:
                images[len(good)] = outcome
            good.append(group)
    return good, None if images is None else images[: len(good)], broken


def image_or_reason(path: Path, resolution: int) -> torch.Tensor | str:
    """One file as uint8 (3, resolution, resolution); or the reason why it cannot be read."""
    try:
        return _read_image(path, resolution)
    except Exception as error:  # Pillow's readers fail on broken files in many ways, TypeError among them
        return _reason(error)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no known image format"  # Pillow's own sentence shows an object in memory
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())


def _read_image(path: Path, resolution: int) -> torch.Tensor:
    known = {s: f for s, f in Image.registered_extensions().items() if s in IMAGE_SUFFIXES | RARE_SUFFIXES}
    if path.suffix.lower() not in known:
        raise ValueError("unsupported format")
    with _open(path) as file, Image.open(file, formats=sorted(set(known.values()))) as image:  # a suffix may lie
        image.draft(None, (2 * resolution, 2 * resolution))  # JPEG: decode a large photo at 1/2, 1/4 or 1/8
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I") or image.mode == "F":  # 16 bits and more: Pillow would cut at 255
            values = np.asarray(image, dtype=np.float32)
            top = 65535.0 if image.mode.startswith("I;16") or values.max() > 255 else 255.0
            image = Image.fromarray((values.clip(0, top) * (255 / top)).round().astype(np.uint8))
        if "A" in image.getbands() or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = ImageOps.fit(image.convert("RGB"), (resolution, resolution), Image.Resampling.BILINEAR)  # as torchvision
        return torch.from_numpy(np.array(image)).movedim(2, 0)  # (H, W, 3) → (3, H, W)


@contextmanager
def quiet():
    """Silence Pillow's warnings of broken EXIF blocks and the like; a suspected decompression bomb is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def in_threads(function: Callable, items: Iterable) -> Iterator:
    """map(function, items) on all cores, since Pillow decodes outside Python's lock; in a worker process, on one."""
    if get_worker_info() is not None:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(CORES) as pool:
        yield from pool.map(function, items)
