"""MNIST and Imagewoof by torchvision's downloader: at their place and whole, or one sentence.

What torchvision leaves open is done here: it waits for ever, leaves half files behind, lets two
processes write into the same file, takes any file of the right name, and ends in a stack trace.
"""

import hashlib
import http.client
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from helpers import CourseError
from helpers.env import connect_timeout, put_in_place, scratch_folder

# of the four unpacked files, as LeCun, Cortes & Burges published them: shape and MD5
MNIST_FILES = {
    "train-images-idx3-ubyte": ((60000, 28, 28), "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ((60000,), "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ((10000, 28, 28), "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ((10000,), "27ae3e4e09519cfbb04c329615203637"),
}

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
    targets = [raw / name for name in MNIST_FILES]
    if _all_there(targets):
        return "found"

    advice = (
        "Put the four MNIST files into COURSE_DATA/MNIST/raw by hand, or call "
        "load_mnist(source='embedded') for scikit-learn's small digits."
    )
    with _downloading("MNIST", targets, advice) as scratch:
        unpacked = scratch / "MNIST" / "raw"
        unpacked.mkdir(parents=True)
        by_hand = [raw / f"{target.name}.gz" for target in targets]
        for packed in by_hand:
            with suppress(FileNotFoundError):
                shutil.copy(packed, unpacked)

        MNIST(scratch, download=True)
        for target in targets:
            put_in_place(unpacked / target.name, target)
        for packed in by_hand:
            packed.unlink(missing_ok=True)
    return "downloaded"


def check_mnist_file(path: Path) -> None:
    """CourseError, with what is wrong, unless this is MNIST's file of that name (0.1 s)."""
    try:
        fault = _mnist_fault(path.read_bytes(), *MNIST_FILES[path.name])
    except OSError as error:
        fault = f"it cannot be read ({error.strerror})"
    if fault:
        raise CourseError(
            f"{path.name} in COURSE_DATA/MNIST/raw is not MNIST's: {fault}. Delete it, and the "
            "right one is downloaded; or call load_mnist(source='embedded') for scikit-learn's "
            "small digits."
        )


def _mnist_fault(content: bytes, shape: tuple[int, ...], md5: str) -> str | None:
    numbers = [2048 + len(shape), *shape]  # 8 for bytes and the dimensions, then the shape
    header = b"".join(number.to_bytes(4, "big") for number in numbers)
    size = len(header) + math.prod(shape)
    begin = content[: len(header)]
    if begin == b"".join(number.to_bytes(4, "little") for number in numbers):
        return "its numbers are little-endian, and MNIST's are big-endian"
    if begin != header[: len(begin)]:
        said = [int.from_bytes(begin[i : i + 4], "big") for i in range(4, len(begin), 4)]
        return f"its header says {_times(said)} bytes and not {_times(shape)}"
    if len(content) != size:
        return f"it has {len(content):,} bytes and not {size:,}"
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        return "it holds another data set, such as Fashion-MNIST, or is damaged"
    return None


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


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
    with _downloading("Imagewoof", [target], advice) as scratch:
        packed = target.with_suffix(".tgz")
        if not check_integrity(packed, IMAGEWOOF_MD5[name]):
            print(f"Downloading {name}.tgz to COURSE_DATA …")
            download_url(f"{IMAGEWOOF}{name}.tgz", scratch, md5=IMAGEWOOF_MD5[name])
            packed = scratch / packed.name
        extract_archive(packed, scratch)
        put_in_place(scratch / name, target)
        packed.unlink(missing_ok=True)
    return "downloaded"


def _all_there(targets: list[Path]) -> bool:
    return all(target.exists() for target in targets)


@contextmanager
def _downloading(what: str, targets: list[Path], advice: str) -> Iterator[Path]:
    """A scratch folder beside `targets` to download into.

    So no half file ever has a whole one's name, and two processes do not meet.  Connections time
    out.  A failure is a CourseError that ends with `advice`, unless another process has meanwhile
    brought the targets.
    """
    try:
        with connect_timeout(), scratch_folder(targets[0].parent, "download") as scratch:
            yield scratch
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        if not _all_there(targets):
            reason = " ".join(str(error).split()).rstrip(".")
            raise CourseError(f"{what} could not be downloaded: {reason}. {advice}") from error
