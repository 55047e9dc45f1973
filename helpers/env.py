"""The three budgets (quick, cpu, gpu), the device, the folders, and how files get into them.

Environment: COURSE_PROFILE, COURSE_DATA, COURSE_RUNS, COURSE_BUILD, COURSE_PUBLISH, COURSE_STATIC.
A relative path is taken from the repository root, because kernels start in notebooks/.
"""

import glob
import io
import os
import re
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from helpers import CourseError

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ("quick", "cpu", "gpu")
CONNECT_TIMEOUT = 15.0  # seconds that a download waits for an answer


def device():
    """CUDA where there is one, else Apple's MPS, else the CPU: a torch.device."""
    import torch  # here, because tools that need nothing installed import this file

    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def profile() -> str:
    """`COURSE_PROFILE`; unset, it is "gpu" where there is a GPU, else "cpu"."""
    name = os.environ.get("COURSE_PROFILE") or ("cpu" if device().type == "cpu" else "gpu")
    if name not in PROFILES:
        raise CourseError(f"COURSE_PROFILE is {name!r}; it can be {', '.join(PROFILES)}.")
    return name


def budget(*, quick, cpu, gpu):
    """The one of three values that belongs to the current profile."""
    return {"quick": quick, "cpu": cpu, "gpu": gpu}[profile()]


def _folder(variable: str, default: str) -> Path:
    return ROOT / Path(os.environ.get(variable) or default).expanduser()  # absolute replaces ROOT


def data_dir() -> Path:
    """Where data is looked for and downloaded to: `COURSE_DATA`, by default data/."""
    return _folder("COURSE_DATA", "data")


def build_dir() -> Path:
    """Where everything that can be made again is written: `COURSE_BUILD`, by default build/."""
    return _folder("COURSE_BUILD", "build")


def runs_dir() -> Path:
    """Where training runs keep their checkpoints: `COURSE_RUNS`, by default build/runs."""
    return _folder("COURSE_RUNS", str(build_dir() / "runs"))


def published_dir(kind: str) -> Path:
    """data/`kind` under `make notebooks` and `make bench` (COURSE_PUBLISH=1), else build/`kind`.

    CourseError in the quick profile when publishing: what it makes is for trying out.
    """
    if os.environ.get("COURSE_PUBLISH") != "1":
        return build_dir() / kind
    if profile() == "quick":
        raise CourseError(
            f"The quick profile makes nothing worth publishing: data/{kind} stays as it is. Unset "
            f"COURSE_PUBLISH, and what it makes goes to build/{kind}."
        )
    return ROOT / "data" / kind


@contextmanager
def connect_timeout() -> Iterator[None]:
    """Inside, a download that waits for an answer gives up after CONNECT_TIMEOUT seconds."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def is_static() -> bool:
    """True where nobody can move a slider (COURSE_STATIC=1): widgets then only draw."""
    return os.environ.get("COURSE_STATIC") == "1"


def survive_terminal() -> None:
    """Print "?" for what a terminal's encoding lacks, such as → in cp1252, instead of failing."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a notebook's is none, and has no such fault
        sys.stdout.reconfigure(errors="replace")


PLAIN_NAME = re.compile(r"\w[\w.-]*")  # leads into no other folder


def check_name(what: str, name: str) -> None:
    """CourseError unless `name` can name a file or folder and stays in the folder it is put in."""
    if not isinstance(name, str) or not PLAIN_NAME.fullmatch(name):
        raise CourseError(
            f"{what} is {name!r}; it can be a plain name of letters, digits, '_', '-' and '.'."
        )


# --- files that two processes may write ---


def write_file(path: Path, content: bytes | str) -> Path:
    """Write `path`, whole or not at all; text as UTF-8.  As `write_by` says."""
    # "replace": the name of somebody's photograph may be no text, and then no UTF-8 either
    data = content.encode(errors="replace") if isinstance(content, str) else content
    return write_by(lambda place: place.write_bytes(data), path)


def write_by(write: Callable[[Path], object], path: Path) -> Path:
    """Write `path`, a file or a folder of files, and its parents: `write(place)` writes to `place`.

    Whoever reads a file sees the old one or the new one, whole, and of several writers the last one
    stays.  Modes follow the umask.  In a folder other files stay.  CourseError where something
    cannot be written (OSError): what was there before is kept.
    """
    try:
        with scratch_folder(path.parent, path.name, minutes=10) as scratch:
            made = scratch / path.name
            write(made)
            plain = scratch / f"{path.name}.plain"
            plain.touch()  # with the mode that the umask gives
            files = [made]
            if made.is_dir():
                files = [file for file in made.rglob("*") if file.is_file()]
            for file in files:
                file.chmod(plain.stat().st_mode)
                with open(file, "rb+") as written:
                    os.fsync(written.fileno())  # on the disk before it gets its name
            for file in files:
                target = path / file.relative_to(made)  # path itself where `made` is the file
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
    except OSError as error:
        raise CourseError(
            f"{path} could not be written ({error.strerror or error}): free some space, or choose "
            "a folder that you may write to. What was there before is kept."
        ) from error
    return path


@contextmanager
def scratch_folder(folder: Path, name: str, minutes: float = 24 * 60) -> Iterator[Path]:
    """A new folder `name`.….part inside `folder`, which is made too; it is removed at the end.

    Nothing in it has its name before it is whole, and two processes do not meet.  What processes
    that were killed left under this name, so many minutes ago, is removed as well.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob(f"{glob.escape(name)}.{8 * '[a-z0-9_]'}.part"):
        with suppress(OSError):  # another process was faster
            if time.time() - part.stat().st_mtime > 60 * minutes:
                shutil.rmtree(part)
    with tempfile.TemporaryDirectory(
        prefix=f"{name}.", suffix=".part", dir=folder, ignore_cleanup_errors=True
    ) as scratch:
        yield Path(scratch)


def put_in_place(made: Path, target: Path) -> None:
    """Give `made` its name `target`; where another process was faster, what that brought stays."""
    try:
        made.replace(target)
    except OSError:
        if not target.exists():
            raise
