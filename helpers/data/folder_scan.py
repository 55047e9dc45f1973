"""Which image files lie below a folder, and which of them are the same."""

import functools
import hashlib
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from helpers.data.image_file import (
    IMAGE_SUFFIXES,
    RARE_SUFFIXES,
    ImageFile,
    begins_like_an_image,
    in_threads,
    open_file,
    quiet,
    reason_of,
)

Skipped = list[tuple[str, str]]  # (file name, reason)


def scan_folder(folder: Path) -> tuple[list[ImageFile], Skipped]:
    """(all image files below `folder`, by name; the folders that are closed).

    A file's suffix says that it is an image, and where it has none, its first bytes.
    """

    def name(path: Path) -> str:
        # Linux takes any bytes for a name; an é is one letter, or two (macOS)
        text = os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "replace")
        return unicodedata.normalize("NFC", text)

    faults: list[OSError] = []
    folder = Path(os.path.abspath(folder))  # what is remembered by path must mean one file
    with quiet():
        paths = [path for path in _walk(folder, faults) if _is_image(path)]
    digests = in_threads(_digest, paths)
    files = [ImageFile(name(path), path, digest) for path, digest in zip(paths, digests)]
    return sorted(files), [(name(Path(fault.filename)), reason_of(fault)) for fault in faults]


def _walk(folder: Path, faults: list[OSError]) -> Iterator[Path]:
    """All files, those in linked folders too; each folder is entered once, by its own name first.

    So links that lead round in a circle come to an end.
    """
    waiting = [folder]
    entered = set()
    while waiting:
        links: list[Path] = []
        for parent, folders, files in os.walk(waiting.pop(0), onerror=faults.append):
            entry = os.stat(parent)
            if (entry.st_dev, entry.st_ino) in entered:
                folders.clear()
                continue
            entered.add((entry.st_dev, entry.st_ino))
            links += [path for path in map(Path(parent).joinpath, folders) if path.is_symlink()]
            yield from map(Path(parent).joinpath, files)
        waiting += sorted(links)


def _is_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in IMAGE_SUFFIXES | RARE_SUFFIXES or not suffix and begins_like_an_image(path)


def _digest(path: Path) -> str:
    try:
        entry = path.stat()
        return _md5(path, entry.st_size, entry.st_mtime_ns)
    except OSError:  # reading it will say what is wrong; until then it equals no other file
        return str(path)


@functools.cache
def _md5(path: Path, size: int, changed: int) -> str:
    """Of the file's bytes; remembered while the process lasts, for the next split."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def by_content(files: list[ImageFile]) -> list[list[ImageFile]]:
    """The files in groups of equal bytes."""
    groups: dict[str, list[ImageFile]] = {}
    for file in files:
        groups.setdefault(file.digest, []).append(file)
    return list(groups.values())
