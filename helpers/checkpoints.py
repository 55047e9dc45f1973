"""Checkpoints as single .safetensors files, written whole or not at all; never a pickle.

A model file holds the weights and, in its header, the model's configuration.  A training file holds everything
that the next step depends on.
"""

import dis
import functools
import hashlib
import json
import os
import sys
import time
import types
from contextlib import suppress
from pathlib import Path

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import nn

from helpers import CourseError
from helpers.budget import ROOT, published_dir, runs_dir


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], header: dict) -> Path:
    """Write a .safetensors file atomically: whoever reads `path` sees the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    _remove_leftovers(path.parent)
    copies = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}  # tied ones share memory
    try:
        save_file(copies, partial, {"course": json.dumps(header)})
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())  # on the disk before it gets its name
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _remove_leftovers(folder: Path, seconds: float = 600.0) -> None:
    """Remove what killed processes left half written: a .part file that nobody wrote to for ten minutes."""
    for part in folder.glob("*.part"):
        with suppress(OSError):  # another process was faster
            if time.time() - part.stat().st_mtime > seconds:
                part.unlink()


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """(tensors, header) of a file that `write_tensors` or another program wrote."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CourseError(f"{path.name} is not a .safetensors file: a pickle can run code, so it is never loaded here.")
    if not path.exists():
        raise CourseError(f"{path.name} is not there: `git checkout data/checkpoints` or `make notebooks` brings it.")
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = (file.metadata() or {}).get("course", "{}")
            return {key: file.get_tensor(key) for key in file.keys()}, json.loads(header)  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CourseError(f"{path.name} is cut off or no safetensors file ({error}): delete it, fetch it again.") from error


def save_model(name: str, model: nn.Module, half: bool = False, **header) -> Path:
    """Save weights and `model.config` to checkpoints/`name`.safetensors (data/ when publishing, else build/).

    half: as float16, in half the space; loading brings them back as float32.
    """
    path = published_dir("checkpoints") / f"{name}.safetensors"
    weights = {
        key: value.half() if half and value.is_floating_point() else value for key, value in model.state_dict().items()
    }
    return write_tensors(path, weights, {"class": type(model).__name__, "config": model.config} | header)


def load_weights(model: nn.Module, path: Path) -> dict:
    """Load a file's weights into `model`, all or nothing; returns the header.

    CourseError names the file and the first key that is missing, unknown or of another shape.
    """
    tensors, header = read_tensors(path)
    wanted = model.state_dict()
    for key in [*wanted, *tensors]:
        if key not in tensors:
            fault = f"lacks {key}"
        elif key not in wanted:
            fault = f"holds {key}, which {type(model).__name__} does not have"
        elif tensors[key].shape != wanted[key].shape:
            fault = f"has {key} as {tuple(tensors[key].shape)} and not {tuple(wanted[key].shape)}"
        else:
            continue
        made = f"it was saved from {header['class']}({header['config']})" if "class" in header else "it is of another model"
        raise CourseError(f"{Path(path).name} {fault}: {made}; build the model with that configuration.")
    model.load_state_dict(tensors)
    return header


def load_shipped(model_class: type[nn.Module], name: str) -> nn.Module:
    """The model that comes with the course as data/checkpoints/`name`.safetensors, ready for use (eval mode)."""
    path = ROOT / "data" / "checkpoints" / f"{name}.safetensors"
    _, header = read_tensors(path)
    if header.get("class") != model_class.__name__:
        held = header.get("class", "weights of another program")
        raise CourseError(f"{path.name} holds {held} and no {model_class.__name__}: load it with the class it was made of.")
    model = model_class(**header["config"])
    load_weights(model, path)
    return model.eval()


def nest(groups: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """{"a": {"b": tensor}} → {"a.b": tensor}, the flat form of a file."""
    return {f"{group}.{name}": value for group, entries in groups.items() for name, value in entries.items()}


def unnest(tensors: dict[str, torch.Tensor], group: str) -> dict[str, torch.Tensor]:
    """The entries of one group of `nest`."""
    return {key.removeprefix(f"{group}."): value for key, value in tensors.items() if key.startswith(f"{group}.")}


def run_folder(run: str, parts: dict[str, str], speak: bool = True) -> Path:
    """$COURSE_RUNS/run/<fingerprint of parts>; says which part differs from an earlier run of the same name."""
    folder = runs_dir() / run / fingerprint(parts)
    if speak and not (folder / "fingerprint.json").exists():
        others = [json.loads(path.read_text()) for path in folder.parent.glob("*/fingerprint.json")]
        if others:
            changed = min(([k for k in parts if parts[k] != other.get(k)] for other in others), key=len)
            print(f"Run {run}: another {' and '.join(changed)} than before; starting afresh beside the old run.")
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / "fingerprint.part"
        partial.write_text(json.dumps(parts))
        partial.replace(folder / "fingerprint.json")
    return folder


def fingerprint(*parts) -> str:
    """16 hex digits that change when a tensor, a number, a text or a function's code among `parts` changes.

    A function brings along what it refers to: its closure, and the numbers, tensors, functions and classes that
    it names, but for those of Python and of installed packages.
    """
    digest = hashlib.blake2b(digest_size=8)
    seen: set[int] = set()  # a function may call itself, and a class's methods refer back to the class

    def add(part) -> None:
        digest.update(f"({type(part).__qualname__} ".encode())  # (1, 23) is not (12, 3)
        if isinstance(part, _PLAIN):
            digest.update(repr(part).encode())
        elif isinstance(part, torch.Tensor | np.ndarray):
            array = torch.as_tensor(part).detach().cpu().contiguous()
            digest.update(f"{array.dtype}{tuple(array.shape)}".encode())
            digest.update(array.view(-1).view(torch.uint8).numpy().data)
        elif id(part) not in seen:
            if isinstance(part, types.FunctionType | type) or _is_ours(type(part)):
                seen.add(id(part))
            for piece in _pieces(part):
                add(piece)
        digest.update(b")")

    add(parts)
    return digest.hexdigest()


_PLAIN = (int, float, complex, str, bytes, types.NoneType, types.EllipsisType, np.generic)


def _pieces(part) -> list:
    """What stands for a thing that is no plain value."""
    if isinstance(part, types.FunctionType):
        return _function_parts(part)
    if isinstance(part, type):
        return _class_parts(part)
    if isinstance(part, types.CodeType):  # not its file or line numbers: re-running a cell changes those
        return [part.co_code, part.co_names, part.co_consts]
    if isinstance(part, list | tuple):
        return list(part)
    if isinstance(part, set | frozenset):
        return sorted(map(repr, part))
    if isinstance(part, dict):
        return [*part.keys(), *part.values()]
    if isinstance(part, types.MethodType):
        return [part.__func__, part.__self__]
    if isinstance(part, functools.partial):
        return [part.func, part.args, part.keywords]
    if isinstance(part, nn.Module):
        return [type(part), part.state_dict()]
    return [type(part), vars(part) if _is_ours(type(part)) and hasattr(part, "__dict__") else None]


def _function_parts(function: types.FunctionType) -> list:
    code, cells = function.__code__, function.__closure__ or ()
    named = {name: function.__globals__.get(name) for name in _names(code)}
    ours = {name: value for name, value in named.items() if _is_ours(value)}
    return [code, function.__defaults__, function.__kwdefaults__, [cell.cell_contents for cell in cells], ours]


def _class_parts(part: type) -> list:
    """Methods, properties, constants and base classes."""
    if not _is_ours(part):
        return [part.__qualname__]
    values = [getattr(v, "fget", getattr(v, "__func__", v)) for v in vars(part).values()]
    methods = [v for v in values if isinstance(v, types.FunctionType)]
    constants = {k: v for k, v in vars(part).items() if isinstance(v, _PLAIN) and not k.startswith("__")}
    return [methods, constants, list(part.__bases__)]


def _names(code: types.CodeType) -> list[str]:
    """The global names of a function, those of the lambdas and comprehensions in it included."""
    inner = [name for const in code.co_consts if isinstance(const, types.CodeType) for name in _names(const)]
    own = [step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
    return list(dict.fromkeys(own + inner))


def _is_ours(value) -> bool:
    """True for numbers, texts and tensors, and for code that is not of Python or an installed package."""
    if not isinstance(value, types.FunctionType | type):
        return isinstance(value, (*_PLAIN, torch.Tensor, np.ndarray)) and value is not None
    top = (value.__module__ or "builtins").split(".")[0]
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    return top == "__main__" or not (top in sys.stdlib_module_names or "-packages" in file)
