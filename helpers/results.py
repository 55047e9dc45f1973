"""Measured numbers as files: whatever the README or a notebook states was written here.

The code that measures them calls `save_result`; notebooks and tables read with `load_result`.
"""

import json
import platform
from importlib.metadata import version

import torch

from helpers import CourseError
from helpers.env import ROOT, check_name, device, profile, published_dir, write_file

PACKAGES = ("torch", "torchvision", "accelerate", "diffusers", "transformers", "scikit-learn")
PACKAGES += ("numpy",)


def describe_device() -> str:
    """The device that measured, in words a reader knows; no host names."""
    on = device().type
    if on == "cuda":
        return torch.cuda.get_device_name()
    if on == "mps":
        return "Apple GPU (MPS)"
    cores = torch.get_num_threads()
    return f"{cores} CPU core{'s' if cores > 1 else ''} ({platform.machine()})"


def save_result(name: str, values: dict, *, seeds: list[int], data: str, code: str) -> dict:
    """Write `values` with where they come from; returns the record.

    To data/results/`name`.json when publishing, else to build/results.
    data: the data set's source; code: a fingerprint of the code that measured them.
    CourseError in the quick profile when publishing.
    """
    check_name("The name of a result", name)
    versions = {package: version(package) for package in PACKAGES}
    record = {
        "values": values,
        "profile": profile(),
        "device": describe_device(),
        "seeds": seeds,
        "data": data,
        "code": code,
        "versions": {"python": platform.python_version()} | versions,
    }
    write_file(published_dir("results") / f"{name}.json", json.dumps(record, indent=1) + "\n")
    return record


def load_result(name: str) -> dict:
    """The published record data/results/`name`.json; CourseError where there is none yet."""
    path = ROOT / "data" / "results" / f"{name}.json"
    if not path.exists():
        raise CourseError(
            f"data/results/{name}.json is not there: `make bench` measures and writes it."
        )
    return json.loads(path.read_text(encoding="utf-8"))
