"""Fingerprints: is a run that is called again the same run, down to the code of its loss?"""

import dis
import functools
import hashlib
import sys
import types

import numpy as np
import torch
from torch import nn

PLAIN = (int, float, complex, str, bytes, types.NoneType, types.EllipsisType, np.generic)


def fingerprint_of(*parts) -> str:
    """16 hex digits that change when anything among `parts` changes.

    Parts are tensors, numbers, texts, functions, classes, models, and lists and dicts of them.  A
    function brings along what it refers to: its closure, and the numbers, tensors, functions and
    classes that it names, but for those of Python and of installed packages.
    """
    digest = hashlib.blake2b(digest_size=8)
    seen: set[int] = set()  # a function may call itself, and methods refer back to their class

    def add(part) -> None:
        digest.update(f"({type(part).__qualname__} ".encode())  # (1, 23) is not (12, 3)
        if isinstance(part, PLAIN):
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


def _pieces(part) -> list:
    """What stands for a thing that is no plain value."""
    if isinstance(part, types.FunctionType):
        return _function_pieces(part)
    if isinstance(part, type):
        return _class_pieces(part)
    if isinstance(part, types.CodeType):
        # not its file or line numbers: running a cell again changes those
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
    inside = vars(part) if _is_ours(type(part)) and hasattr(part, "__dict__") else None
    return [type(part), inside]


def _function_pieces(function: types.FunctionType) -> list:
    code = function.__code__
    closure = [cell.cell_contents for cell in function.__closure__ or ()]
    named = {name: function.__globals__.get(name) for name in _global_names(code)}
    ours = {name: value for name, value in named.items() if _is_ours(value)}
    return [code, function.__defaults__, function.__kwdefaults__, closure, ours]


def _class_pieces(part: type) -> list:
    """Methods, properties, constants and base classes."""
    if not _is_ours(part):
        return [part.__qualname__]
    members = vars(part)
    # the function inside a property, a class method or a static method
    functions = [getattr(v, "fget", getattr(v, "__func__", v)) for v in members.values()]
    methods = [function for function in functions if isinstance(function, types.FunctionType)]
    constants = {
        name: value
        for name, value in members.items()
        if isinstance(value, PLAIN) and not name.startswith("__")
    }
    return [methods, constants, list(part.__bases__)]


def _global_names(code: types.CodeType) -> list[str]:
    """The global names of a function, those of the lambdas and comprehensions in it included."""
    steps = dis.get_instructions(code)
    names = [step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += _global_names(constant)
    return list(dict.fromkeys(names))


def _is_ours(value) -> bool:
    """True for numbers, texts and tensors, and for code not of Python or an installed package."""
    if not isinstance(value, types.FunctionType | type):
        plain = isinstance(value, (*PLAIN, torch.Tensor, np.ndarray))
        return plain and value is not None
    top = (value.__module__ or "builtins").split(".")[0]
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    return top == "__main__" or not (top in sys.stdlib_module_names or "-packages" in file)
