"""The three budgets (quick, cpu, gpu), the device, the folders, and seeding.

Environment: COURSE_PROFILE, COURSE_DATA, COURSE_RUNS, COURSE_BUILD, COURSE_PUBLISH, COURSE_STATIC.
A relative path is taken from the repository root, because kernels start in notebooks/.
"""

import hashlib
import os
import random
from pathlib import Path

import numpy as np
import torch

from helpers import CourseError

ROOT = Path(__file__).resolve().parent.parent
PROFILES = ("quick", "cpu", "gpu")


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
    return ROOT / Path(os.environ.get(variable) or default).expanduser()  # an absolute path replaces ROOT


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
    return (ROOT / "data" if os.environ.get("COURSE_PUBLISH") == "1" else build_dir()) / kind


def is_static() -> bool:
    """True where nobody can move a slider (COURSE_STATIC=1): widgets then draw their picture only."""
    return os.environ.get("COURSE_STATIC") == "1"


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state() -> dict[str, torch.Tensor]:
    """The state of torch's global generators (dropout draws from them)."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def set_random_state(state: dict[str, torch.Tensor]) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


class ShardedGenerator(torch.Generator):
    """A torch.Generator of one process among several that share a batch.

    `shard = (index, count)`: every process draws the numbers of the whole batch and keeps the rows that
    are its own, so that several processes see the same noise as one.
    """

    shard = (0, 1)


def generator_for(*key, device: torch.device | str = "cpu", shard: tuple[int, int] = (0, 1)) -> torch.Generator:
    """A generator that depends on `key` alone, e.g. (seed, epoch, step): nothing to save for a resume."""
    generator = ShardedGenerator(device=device)
    generator.manual_seed(int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=7).digest(), "big"))
    generator.shard = shard
    return generator


def draw(sampler, shape, generator: torch.Generator | None = None, **options) -> torch.Tensor:
    """`sampler` (torch.randn, torch.rand) of `shape`, whose first dimension is this process's part of a batch."""
    index, count = getattr(generator, "shard", (0, 1))
    if count == 1:
        return sampler(shape, generator=generator, **options)
    whole = sampler((shape[0] * count, *shape[1:]), generator=generator, **options)
    return whole[index * shape[0] : (index + 1) * shape[0]]


def randn_like(tensor: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Standard normal noise like `tensor` (torch.randn_like, but with a generator)."""
    return draw(torch.randn, tensor.shape, generator, dtype=tensor.dtype, device=tensor.device)
