"""MNIST and Imagewoof by torchvision's downloader: at their place and whole, or one sentence.

What torchvision leaves open is done here: it waits for ever, leaves half files behind, lets two
processes write into the same file, and ends in a stack trace.
"""

import http.client
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers import CourseError
from helpers.env import connect_timeout

# ten breeds of dogs out of ImageNet, by fast.ai
IMAGEWOOF = "https://s3.amazonaws.com/fast-ai-imageclas/"
IMAGEWOOF_MD5 = {
    "imagewoof2-160": "3d200a7be99704a0d7509be2a9fbfe15",
    "imagewoof2-320": "0f46d997ec2264e97609196c95897a44",
}


def fetch_mnist(root: Path) -> str:
    """Bring MNIST's four files to root/MNIST/raw: "found" where they are there, or "downloaded".

    A .gz that was put there by hand is taken.
    """
    from torchvision.datasets import MNIST

    raw = root / "MNIST" / "raw"
    names = [Path(packed).stem for packed, _ in MNIST.resources]
    if all((raw / name).exists() for name in names):
        return "found"

    advice = (
        "Put the four MNIST files into COURSE_DATA/MNIST/raw by hand, or call "
        "load_mnist(source='embedded') for scikit-learn's small digits."
    )
    with _scratch_folder(raw, "MNIST", advice) as scratch:
        unpacked = scratch / "MNIST" / "raw"
        unpacked.mkdir(parents=True)
        by_hand = [path for name in names if (path := raw / f"{name}.gz").exists()]
        for packed in by_hand:
            shutil.copy(packed, unpacked)

        MNIST(scratch, download=True)
        for name in names:
            (unpacked / name).replace(raw / name)
        for packed in by_hand:
            packed.unlink(missing_ok=True)
    return "downloaded"


def fetch_imagewoof(target: Path) -> str:
    """Bring Imagewoof to `target`, …/imagewoof2-160 or …/imagewoof2-320: "found" or "downloaded".

    A .tgz that was put beside it by hand is taken.  Where the folder is, it is whole.
    """
    from torchvision.datasets.utils import check_integrity, download_url, extract_archive

    if target.is_dir():
        return "found"

    name = target.name
    advice = (
        f"Put photos of your own into COURSE_DATA/dogs, or {name}.tgz into COURSE_DATA, or call "
        "load_dogs(source='embedded') for drawn dogs."
    )
    with _scratch_folder(target.parent, "Imagewoof", advice) as scratch:
        packed = target.with_suffix(".tgz")
        if not check_integrity(packed, IMAGEWOOF_MD5[name]):
            print(f"Downloading {name}.tgz to COURSE_DATA …")
            download_url(f"{IMAGEWOOF}{name}.tgz", scratch, md5=IMAGEWOOF_MD5[name])
            packed = scratch / packed.name
        extract_archive(packed, scratch)
        _put(scratch / name, target)
        packed.unlink(missing_ok=True)
    return "downloaded"


def _put(unpacked: Path, target: Path) -> None:
    try:
        unpacked.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was faster
            raise


@contextmanager
def _scratch_folder(folder: Path, what: str, advice: str) -> Iterator[Path]:
    """A new folder inside `folder` to download into, which is removed at the end.

    So no half file ever has a whole one's name, and two processes do not meet.  Connections time
    out, and a failure is a CourseError that ends with `advice`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        scratch = tempfile.TemporaryDirectory(prefix="download.", suffix=".part", dir=folder)
        with connect_timeout(), scratch as path:
            yield Path(path)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise CourseError(f"{what} could not be downloaded: {reason}. {advice}") from error


def _remove_leftovers(folder: Path, seconds: float = 86400.0) -> None:
    """Remove what processes that were killed left a day ago or earlier."""
    for scratch in folder.glob("download.*.part"):
        if time.time() - scratch.stat().st_mtime > seconds:
            shutil.rmtree(scratch, ignore_errors=True)
