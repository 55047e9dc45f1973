"""Measured numbers as files: whatever the README or a notebook states was written here by the code that measured it."""

import json
import platform
from importlib.metadata import version

from helpers import CourseError
from helpers.budget import ROOT, device, profile, published_dir

PACKAGES = ("torch", "torchvision", "accelerate", "diffusers", "transformers", "scikit-learn", "numpy")


def describe_device() -> str:
    """The device that measured, in words a reader knows; no host names."""
    import torch

    if device().type == "cuda":
        return torch.cuda.get_device_name()
    cores = torch.get_num_threads()
    return f"{cores} CPU core{'s'[: cores - 1]} ({platform.machine()})" if device().type == "cpu" else "Apple GPU (MPS)"


def save_result(name: str, values: dict, *, seeds: list[int], data: str) -> dict:
    """Write `values` with where they come from to data/results/`name`.json (build/results unless publishing)."""
    record = {
        "values": values,
        "profile": profile(),
        "device": describe_device(),
        "seeds": seeds,
        "data": data,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }
    path = published_dir("results") / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    return record


def load_result(name: str) -> dict:
    """The published record data/results/`name`.json; CourseError where it has not been measured yet."""
    path = ROOT / "data" / "results" / f"{name}.json"
    if not path.exists():
        raise CourseError(f"data/results/{name}.json is not there: `make bench` measures and writes it.")
    return json.loads(path.read_text())
