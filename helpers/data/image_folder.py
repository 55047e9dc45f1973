"""Folders of images: which of their files can be read, and what is said about the others."""

import math
from functools import partial
from pathlib import Path

import torch

from helpers import CourseError, check_choice
from helpers.data.folder_scan import Skipped, by_content, scan_folder
from helpers.data.image_file import IMAGE_SUFFIXES, image_or_reason, in_threads, quiet
from helpers.data.image_set import ImageSet
from helpers.data.large_folder import ImageFiles
from helpers.data.splits import FEWEST, SPLITS, Group, split_groups, split_of

MEMORY_LIMIT = 4 * 2**30  # bytes; a set with more pixels than that stays in its files


def load_image_folder(
    folder: str | Path, resolution: int = 128, split: str | None = None
) -> ImageSet:
    """All images below `folder`, as RGB (N, 3, resolution, resolution), sorted by name.

    split: "train", "validation" or "test" for a part of them, by the rule of `splits`: 4 images
    that can be read are enough for all three.
    The short side is resized (bilinear, antialiased, as by torchvision) and the middle cropped,
    never squashed.  Grey, palette, alpha (on white), CMYK, 16-bit and animated (first frame) images
    are converted.  What cannot be read is skipped and listed once: each file is decoded here, so
    that a broken one does not show in the middle of a training.  Files with equal bytes are one
    image, under the first of their names.  Linked folders are followed, each once.

    Raises CourseError where no image is left, or, with a split, fewer than 4.
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

    files, closed = scan_folder(folder)
    groups = by_content(files)
    fewest = 1
    if split is not None:
        with quiet():
            parts = split_groups(groups, _is_readable)
        if parts is None:
            fewest = FEWEST  # all are read below, to say why they are too few
        else:
            groups = parts[split]
            closed = [(name, reason) for name, reason in closed if split_of(name) == split]
    total = sum(map(len, groups)) + len(closed)

    good, images, broken = _read_groups(groups, resolution)
    skipped = sorted(closed + broken)
    if len(good) < fewest:
        raise CourseError(f"{folder}: {_fault(total, len(good), skipped)}.")
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


# --- which of them can be read ---


def _is_readable(group: Group) -> bool:
    """At the smallest size, which is the fastest: the splits are the same at every size."""
    return not isinstance(image_or_reason(group[0].path, resolution=1), str)


def _read_groups(
    groups: list[Group], resolution: int
) -> tuple[list[Group], torch.Tensor | ImageFiles, Skipped]:
    """(the groups that are an image, these images, all other files)."""
    shape = (len(groups), 3, resolution, resolution)
    fits = math.prod(shape) <= MEMORY_LIMIT
    images = torch.empty(shape, dtype=torch.uint8) if fits else None
    good: list[Group] = []
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


def _fault(total: int, good: int, skipped: Skipped) -> str:
    """Why no image is left, or too few of `total` for a split."""
    if not total:
        return f"it holds no image files; expected {_suffixes()}"
    first = f" (the first: {skipped[0][0]}: {skipped[0][1]})" if skipped else ""
    if not good:
        return f"none of its {total} image files can be read{first}; expected {_suffixes()}"
    few = f"it holds {good} different image{'s' if good > 1 else ''} that can be read"
    return f"{few}, and {FEWEST} are needed: one to train on, one to watch, two to hold out"


def _listed(skipped: Skipped, most: int = 10) -> str:
    shown = [" ".join(f"{name} ({reason})".split()) for name, reason in skipped[:most]]
    more = f"; … and {len(skipped) - most} more" if len(skipped) > most else ""
    return "; ".join(shown) + more
