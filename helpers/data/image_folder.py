"""Folders of images: which files one holds, which of them can be read, and their splits."""

import hashlib
import math
import os
import unicodedata
from functools import partial
from pathlib import Path

import torch

from helpers import CourseError, check_choice
from helpers.data.image_file import (
    IMAGE_SUFFIXES,
    RARE_SUFFIXES,
    ImageFile,
    image_or_reason,
    in_threads,
    open_file,
    quiet,
    reason_of,
)
from helpers.data.image_set import ImageSet
from helpers.data.large_folder import ImageFiles

SPLITS = ("train", "validation", "test")
MEMORY_LIMIT = 4 * 2**30  # bytes; a set with more pixels than that stays in its files

Skipped = list[tuple[str, str]]  # (file name, reason)


def load_image_folder(
    folder: str | Path, resolution: int = 128, split: str | None = None
) -> ImageSet:
    """All images below `folder`, as RGB (N, 3, resolution, resolution), sorted by name.

    split: "train", "validation" or "test" for a part of them, by the rule of `load_dogs`.
    The short side is resized (bilinear, antialiased, as by torchvision) and the middle cropped,
    never squashed.  Grey, palette, alpha (on white), CMYK, 16-bit and animated (first frame) images
    are converted.  What cannot be read is skipped and listed once: each file is decoded here, so
    that a broken one does not show in the middle of a training.  Files with equal bytes are one
    image, under the first of their names.

    Raises CourseError where no image is left.
    """
    check_resolution(resolution)
    check_choice("split", split, (None, *SPLITS))
    if not str(folder):
        raise CourseError("The folder's name is empty; one with images was expected.")
    folder = Path(folder)
    if not folder.is_dir():
        raise CourseError(
            f"{folder} is not a folder; one with images was expected ({_suffixes()})."
        )

    files, closed = _find(folder)
    groups = [group for group in _by_content(files) if split in (None, split_of(group[0].name))]
    closed = [(name, reason) for name, reason in closed if split in (None, split_of(name))]
    total = sum(map(len, groups)) + len(closed)

    good, images, broken = _read_groups(groups, resolution)
    skipped = sorted(closed + broken)
    if not good:
        fault = _fault(len(files), total, split, skipped)
        raise CourseError(f"{folder}: {fault}; expected {_suffixes()}.")
    if skipped:
        print(f"{len(skipped)} of {total} files skipped: {_listed(skipped)}")

    return ImageSet(
        images,
        labels=None,
        source=f"folder {folder.resolve().name}",
        names=tuple(group[0].name for group in good),
        skipped=tuple(skipped),
        duplicates=sum(map(len, good)) - len(good),
    )


def check_resolution(resolution: int) -> None:
    """CourseError unless it is a number of pixels."""
    if not isinstance(resolution, int) or resolution < 1:
        raise CourseError(
            f"resolution is {resolution!r}; it is a whole number of pixels, such as 128."
        )


def split_of(name: str) -> str:
    """The split of a file, on which its name alone decides.

    "train" for about 85 % of all files, "validation" for 5 %, "test" for 10 %.
    """
    share = int.from_bytes(hashlib.md5(name.encode()).digest()[:8], "big") / 2**64
    if share < 0.85:
        return "train"
    return "validation" if share < 0.9 else "test"


# --- which files there are ---


def _find(folder: Path) -> tuple[list[ImageFile], Skipped]:
    """(all files below `folder` with an image's suffix, by name; the folders that are closed)."""

    def name(path: Path) -> str:
        # Linux takes any bytes for a name; an é is one letter, or two (macOS)
        text = os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "replace")
        return unicodedata.normalize("NFC", text)

    faults: list[OSError] = []
    walk = os.walk(folder, onerror=faults.append)
    paths = [Path(parent, file) for parent, _, files in walk for file in files]
    paths = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES | RARE_SUFFIXES]

    digests = in_threads(_digest, paths)
    files = [ImageFile(name(path), path, digest) for path, digest in zip(paths, digests)]
    return sorted(files), [(name(Path(fault.filename)), reason_of(fault)) for fault in faults]


def _digest(path: Path) -> str:
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except OSError:  # reading it will say what is wrong; until then it equals no other file
        return str(path)


def _by_content(files: list[ImageFile]) -> list[list[ImageFile]]:
    """The files in groups of equal bytes."""
    groups: dict[str, list[ImageFile]] = {}
    for file in files:
        groups.setdefault(file.digest, []).append(file)
    return list(groups.values())


# --- which of them can be read ---


def _read_groups(
    groups: list[list[ImageFile]], resolution: int
) -> tuple[list[list[ImageFile]], torch.Tensor | ImageFiles, Skipped]:
    """(the groups that are an image, these images, all other files)."""
    shape = (len(groups), 3, resolution, resolution)
    fits = math.prod(shape) <= MEMORY_LIMIT
    images = torch.empty(shape, dtype=torch.uint8) if fits else None
    good: list[list[ImageFile]] = []
    broken: Skipped = []

    read = partial(image_or_reason, resolution=resolution)
    with quiet():
        outcomes = in_threads(read, [group[0].path for group in groups])
        for group, outcome in zip(groups, outcomes):
            if isinstance(outcome, str):
                broken += [(file.name, outcome) for file in group]
                continue
            if fits:
                images[len(good)] = outcome
            good.append(group)

    if fits:
        return good, images[: len(good)], broken
    return good, ImageFiles(tuple(group[0] for group in good), resolution), broken


# --- what is said ---


def _suffixes() -> str:
    return ", ".join(sorted(IMAGE_SUFFIXES))


def _fault(files: int, total: int, split: str | None, skipped: Skipped) -> str:
    """Why no image is left, of `files` in the folder and `total` in the split."""
    if not files and not total:
        return "it holds no image files"
    if not total:
        return (
            f"none of its {files} image files falls into the {split} split, which needs more "
            "of them"
        )
    first = f" (the first: {skipped[0][0]}: {skipped[0][1]})" if skipped else ""
    return f"none of its {total} image files can be read{first}"


def _listed(skipped: Skipped, most: int = 10) -> str:
    shown = [" ".join(f"{name} ({reason})".split()) for name, reason in skipped[:most]]
    more = f"; … and {len(skipped) - most} more" if len(skipped) > most else ""
    return "; ".join(shown) + more
