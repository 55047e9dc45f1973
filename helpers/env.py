"""The three budgets (quick, cpu, gpu), the device, and the folders.

Environment: COURSE_PROFILE, COURSE_DATA, COURSE_RUNS, COURSE_BUILD, COURSE_PUBLISH, COURSE_STATIC.
A relative path is taken from the repository root, because kernels start in notebooks/.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from helpers import CourseError

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ("quick", "cpu", "gpu")
CONNECT_TIMEOUT = 15.0  # seconds that a download waits for an answer


def device() -> torch.device:
    """CUDA where there is one, else Apple's MPS, else the CPU."""
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
    """data/`kind` under `make notebooks` and `make bench` (COURSE_PUBLISH=1), else build/`kind`."""
    published = os.environ.get("COURSE_PUBLISH") == "1"
    return (ROOT / "data" if published else build_dir()) / kind


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
