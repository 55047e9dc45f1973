"""Downloads with checksums: whole files at their place, or one sentence on what failed and what to do."""

import gzip
import hashlib
import http.client
import shutil
import tarfile
import tempfile
import time
import urllib.request
from pathlib import Path

from helpers import CourseError

CONNECT_TIMEOUT = 15.0  # seconds
IMAGEWOOF = "https://s3.amazonaws.com/fast-ai-imageclas/"  # ten breeds of dogs out of ImageNet, by fast.ai
IMAGEWOOF_MD5 = {"imagewoof2-160": "3d200a7be99704a0d7509be2a9fbfe15", "imagewoof2-320": "0f46d997ec2264e97609196c95897a44"}


def download(url: str, path: Path, md5: str) -> Path:
    """Fetch `url` to `path` with a checksum; CourseError with what to do where it fails, and no half file."""
    partial, digest = path.with_name(path.name + ".part"), hashlib.md5()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT) as answer, open(partial, "wb") as file:
            while block := answer.read(1 << 20):
                digest.update(block)
                file.write(block)
        if digest.hexdigest() != md5:
            raise CourseError(f"{url} has checksum {digest.hexdigest()} and not {md5}: try again later.")
        partial.replace(path)
    except (OSError, http.client.HTTPException) as error:
        raise CourseError(f"{url} could not be downloaded ({error}): check the connection and try again.") from error
    finally:
        if partial.exists():
            partial.unlink()
    return path


def _is_whole(path: Path, md5: str) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == md5


def fetch_mnist(folder: Path) -> str:
    """Bring MNIST's four files into `folder`; returns "found" where they are there, else "downloaded".

    A .gz that was put there by hand is taken.
    """
    from torchvision.datasets import MNIST

    missing = [(name, md5) for name, md5 in MNIST.resources if not (folder / name.removesuffix(".gz")).exists()]
    for name, md5 in missing:
        target, packed = folder / name.removesuffix(".gz"), folder / name
        if not _is_whole(packed, md5):
            _download_from_mirrors(packed, md5)
        partial = target.with_name(f"{target.name}.part")
        try:
            partial.write_bytes(gzip.decompress(packed.read_bytes()))
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        packed.unlink()
    return "downloaded" if missing else "found"


def _download_from_mirrors(packed: Path, md5: str) -> None:
    from torchvision.datasets import MNIST

    failures = []
    for mirror in MNIST.mirrors:
        try:
            download(mirror + packed.name, packed, md5)
            return
        except CourseError as error:
            failures.append(str(error))
    raise CourseError(
        " ".join(failures) + " Put the four MNIST files into COURSE_DATA/MNIST/raw by hand, "
        "or call load_mnist(source='embedded') for scikit-learn's small digits."
    )


def fetch_imagewoof(target: Path) -> str:
    """Bring Imagewoof to `target`, .../imagewoof2-160 or .../imagewoof2-320; returns "found" or "downloaded".

    A .tgz that was put beside it by hand is taken.  Where the folder is, it is whole: its files come to another one.
    """
    if target.is_dir():
        return "found"
    folder, name, packed = target.parent, target.name, target.with_name(f"{target.name}.tgz")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder, name)
        with tempfile.TemporaryDirectory(prefix=f"{name}.", suffix=".part", dir=folder) as scratch:
            if not _is_whole(packed, IMAGEWOOF_MD5[name]):
                print(f"Downloading {name}.tgz to COURSE_DATA …")
                # into a folder of its own: another process may be at it too
                packed = download(f"{IMAGEWOOF}{name}.tgz", Path(scratch) / packed.name, IMAGEWOOF_MD5[name])
            with tarfile.open(packed) as archive:
                archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.3 and older have none
                archive.extractall(scratch)
            _put(Path(scratch) / name, target)
            packed.unlink(missing_ok=True)
    except (OSError, tarfile.TarError, CourseError) as error:
        what = " ".join(str(error).split()).rstrip(".")
        raise CourseError(
            f"Imagewoof, the dogs of the course, could not be had: {what}. Put photos of your own into "
            f"COURSE_DATA/dogs, or {name}.tgz into COURSE_DATA, or call load_dogs(source='embedded') for drawn dogs."
        ) from error
    return "downloaded"


def _put(unpacked: Path, target: Path) -> None:
    try:
        unpacked.rename(target)
    except OSError:
        if not target.is_dir():  # else another process was faster
            raise


def _remove_leftovers(folder: Path, name: str, seconds: float = 3600.0) -> None:
    """Remove what a killed process left an hour ago or earlier."""
    for scratch in folder.glob(f"{name}.*.part"):
        if time.time() - scratch.stat().st_mtime > seconds:
            shutil.rmtree(scratch, ignore_errors=True)
