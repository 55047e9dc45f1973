"""Which images of a folder are trained on, watched during training, and held out.

A file's name decides: its hash is a number from 0 to 1, and "train" is below 0.85, "validation"
below 0.9, "test" above.  So a photo stays in its split whatever else is in the folder.

In a small folder a split may lack what it needs (one image for validation, two for a test).  Then
the images are sorted by that number, and as few as possible go to a neighbouring split, those
nearest to the limit first.  A photo that is added moves two others at most, and none that was
trained on to those that are held out (if any has a number below 0.85).
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from helpers.data.image_file import ImageFile, in_threads

SPLITS = ("train", "validation", "test")
LEAST = {"train": 1, "validation": 1, "test": 2}  # figures are means, and of one image they are not
FEWEST = sum(LEAST.values())

Group = list[ImageFile]  # files of equal bytes; the first one's name counts


def split_of(name: str) -> str:
    """The split in which a file's name puts it.

    "train" for about 85 % of all files, "validation" for 5 %, "test" for 10 %.
    """
    share = _share(name)
    if share < 0.85:
        return "train"
    return "validation" if share < 0.9 else "test"


def split_groups(
    groups: Sequence[Group], readable: Callable[[Group], bool]
) -> dict[str, list[Group]] | None:
    """{split: its groups, in the order of `groups`}; None where fewer than FEWEST are readable.

    readable(group): whether it is an image.  Few are asked where each split has what it needs; else
    all are.
    """
    chosen = {group[0].name: split_of(group[0].name) for group in groups}
    parts = _gathered(groups, chosen)
    if all(_has(parts[split], LEAST[split], readable) for split in SPLITS):
        return parts

    good = [group[0].name for group, ok in zip(groups, in_threads(readable, groups)) if ok]
    return None if len(good) < FEWEST else _gathered(groups, chosen | _ranked(good))


def _ranked(names: list[str]) -> dict[str, str]:
    """{name: split}, with what each split needs; from FEWEST names on."""
    ranked = sorted(names, key=_share)
    splits = [split_of(name) for name in ranked]
    count = len(ranked)
    train = splits.count("train")
    train = min(max(train, LEAST["train"]), count - LEAST["validation"] - LEAST["test"])
    held_out = splits.count("test")
    held_out = min(max(held_out, LEAST["test"]), count - train - LEAST["validation"])
    counts = {"train": train, "validation": count - train - held_out, "test": held_out}
    return dict(zip(ranked, (split for split in SPLITS for _ in range(counts[split]))))


def _share(name: str) -> float:
    """A number from 0 to 1 that looks random and depends on the name alone."""
    return int.from_bytes(hashlib.md5(name.encode()).digest()[:8], "big") / 2**64


def _gathered(groups: Sequence[Group], chosen: dict[str, str]) -> dict[str, list[Group]]:
    return {split: [g for g in groups if chosen[g[0].name] == split] for split in SPLITS}


def _has(groups: Iterable[Group], least: int, readable: Callable[[Group], bool]) -> bool:
    return len(list(islice(filter(readable, groups), least))) == least
