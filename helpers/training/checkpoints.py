"""Checkpoints as single .safetensors files, written whole or not at all; never a pickle.

A model's file holds the weights and, in its header, the model's configuration.  A run's file holds
everything that the next step depends on.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file
from torch import nn

from helpers import CourseError
from helpers.env import (
    ROOT,
    check_name,
    published_dir,
    runs_dir,
    write_by,
    write_file,
)
from helpers.training.fingerprint import fingerprint_of


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], header: dict) -> Path:
    """Write a .safetensors file, whole or not at all; CourseError where it cannot be written."""
    # copies, because the format refuses tied weights, which share memory
    copies = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    metadata = {"course": json.dumps(header)}
    return write_library(path, lambda place: save_file(copies, place, metadata))


def write_library(path: Path, save: Callable[[Path], object]) -> Path:
    """`write_by` for what a library saves by safetensors: a file, or the folder of a model.

    On its own it would write through hidden files, which kills leave, and for the owner alone.
    """

    def write(place: Path) -> None:
        try:
            save(place)
        except safetensors.SafetensorError as error:  # a full disk, in the library's words
            raise OSError(str(error)) from error

    return write_by(write, path)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """(tensors, header) of a file that `write_tensors` or another program wrote."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CourseError(
            f"{path.name} is not a .safetensors file: a pickle can run code, so it is never loaded "
            "here."
        )
    if not path.exists():
        raise CourseError(
            f"{path.name} is not there: `git checkout data/checkpoints` or `make notebooks` "
            "brings it."
        )
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("course", "{}"))
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, header
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CourseError(
            f"{path.name} is cut off or no safetensors file ({error}): delete it, fetch it again."
        ) from error


def save_model(name: str, model: nn.Module, half: bool = False, **header) -> Path:
    """Save weights and `model.config` to checkpoints/`name`.safetensors.

    The folder is in data/ when publishing, else in build/.  The configuration is a dataclass or a
    dict of the constructor's arguments.
    half: as float16, in half the space; loading brings the weights back as float32.
    """
    weights = model.state_dict()
    if half:
        weights = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    check_name("The name of a checkpoint", name)
    path = published_dir("checkpoints") / f"{name}.safetensors"
    return write_tensors(path, weights, describe(model) | header)


def describe(model: nn.Module) -> dict:
    """A header that says how the model is built again: {"class", "config"}.

    {} where it has no configuration that a header can hold.
    """
    config = getattr(model, "config", None)
    if is_dataclass(config):
        config = asdict(config)
    try:
        json.dumps(config)
    except TypeError:
        return {}
    return {} if config is None else {"class": type(model).__name__, "config": config}


def load_weights(model: nn.Module, path: Path) -> dict:
    """Load a file's weights into `model`, all or nothing; returns the header.

    CourseError names the file and the first key that is missing, unknown or of another shape.
    """
    tensors, header = read_tensors(path)
    put_weights(model, tensors, header, Path(path).name)
    return header


def put_weights(
    model: nn.Module, tensors: dict[str, torch.Tensor], header: dict, name: str
) -> None:
    """`load_weights` with what was read from the file `name`."""
    fault = _first_fault(model, tensors)
    if fault:
        origin = "it is of another model"
        if "class" in header:
            origin = f"it was saved from {header['class']}({header['config']})"
        raise CourseError(f"{name} {fault}: {origin}; build the model with that configuration.")
    model.load_state_dict(tensors)


def _first_fault(model: nn.Module, tensors: dict[str, torch.Tensor]) -> str | None:
    wanted = model.state_dict()
    for key in [*wanted, *tensors]:
        if key not in tensors:
            return f"lacks {key}"
        if key not in wanted:
            return f"holds {key}, which {type(model).__name__} does not have"
        if tensors[key].shape != wanted[key].shape:
            return f"has {key} as {tuple(tensors[key].shape)} and not {tuple(wanted[key].shape)}"
    return None


def load_shipped(model_class: type[nn.Module], name: str) -> nn.Module:
    """The model that comes with the course as data/checkpoints/`name`.safetensors, in eval mode."""
    path = ROOT / "data" / "checkpoints" / f"{name}.safetensors"
    _, header = read_tensors(path)
    if header.get("class") != model_class.__name__:
        held = header.get("class", "weights of another program")
        raise CourseError(
            f"{path.name} holds {held} and no {model_class.__name__}: load it with the class it "
            "was made of."
        )
    model = model_class(**header["config"])
    load_weights(model, path)
    return model.eval()


def nest(groups: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """{"a": {"b": tensor}} → {"a.b": tensor}, the flat form of a file."""
    return {
        f"{group}.{name}": tensor
        for group, entries in groups.items()
        for name, tensor in entries.items()
    }


def unnest(tensors: dict[str, torch.Tensor], group: str) -> dict[str, torch.Tensor]:
    """The entries of one group of `nest`."""
    start = f"{group}."
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}


def run_folder(run: str, parts: dict[str, str], speak: bool = True) -> Path:
    """$COURSE_RUNS/run/<fingerprint of parts>.

    speak: make the folder, and say which part differs from an earlier run of the same name; of
    several processes one does so.
    """
    check_name("run", run)
    folder = runs_dir() / run / fingerprint_of(parts)
    note = folder / "fingerprint.json"
    if not speak or _read_note(note) == parts:
        return folder

    others = [_read_note(path) for path in folder.parent.glob(f"*/{note.name}")]
    if others and not folder.exists():
        changes = [[part for part in parts if parts[part] != other.get(part)] for other in others]
        changed = " and ".join(min(changes, key=len))
        print(f"Run {run}: the {changed} changed; starting afresh beside the old run.")

    write_file(note, json.dumps(parts))
    return folder


def _read_note(path: Path) -> dict:
    """What a run was made for; {} where the note is missing, cut off or foreign."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
