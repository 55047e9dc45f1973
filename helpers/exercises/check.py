"""What the checks of the exercises share: how they speak, and what an exercise hands on.

The body of a check takes the learner's answer and returns praise, or raises `Rejected` with one
sentence on what is wrong.  It compares with an independent truth (a closed form,
torch.distributions, PyTorch's own op), on shapes that are not square, and statistically where the
answer is random.  A decorator makes a check of it, which prints and never raises:

    @exercise                           prints "✓ …", "✗ …" or "not attempted yet"
    @in_place("helpers.module:Name")    does so, and returns what the cells below use

A stub raises a bare NotImplementedError; a class may do so in `__init__` or in any method.
"""

import functools
import pkgutil
from collections.abc import Callable

import torch
from torch import nn

from helpers.env import build_dir


class Rejected(Exception):
    """What is wrong with an answer, in one sentence for the learner."""


def reject(unless: bool, sentence: str) -> None:
    """Raise Rejected with `sentence` unless the condition holds."""
    if not unless:
        raise Rejected(sentence)


def exercise(body: Callable[..., str]) -> Callable[..., None]:
    """A check that prints what `body` finds; a pass is noted for `make progress`."""

    @functools.wraps(body)
    def check(*answers) -> None:
        _, found = _examine(body, *answers)
        print(
            found
            or "not attempted yet: replace `raise NotImplementedError` and run this cell again"
        )

    return check


def in_place(path: str) -> Callable:
    """A check that returns what the notebook goes on with: `Name = check.name(Name)`.

    That is the learner's class or function if it passes, else the course's, which stands at `path`
    ("helpers.module:Name") and is imported when the check runs.  The body takes both,
    body(answer, course); where they are networks it compares them with `twins`.
    """

    def decorate(body: Callable[[Callable, Callable], str]) -> Callable[[object], Callable]:
        @functools.wraps(body)
        def of_one_kind(answer, course) -> str:
            _expect_kind(answer, course)
            return body(answer, course)

        @functools.wraps(body)
        def check(answer):
            course = pkgutil.resolve_name(path)
            passed, found = False, ""
            if answer is not course:  # else the line of the check alone was run again
                passed, found = _examine(of_one_kind, answer, course)

            if passed:
                print(f"{found} Yours is used from here on.")
            elif found:
                print(f"{found} The course's is used from here on.")
            else:
                print("not attempted yet: the course's is used from here on")
            return answer if passed else course

        return check

    return decorate


def twins(answer: type, course: type, *args, **kwargs) -> tuple[nn.Module, nn.Module]:
    """The learner's network and the course's, made with the same arguments, with the same weights.

    Shipped checkpoints have to load into the learner's class: rejects one that lacks a method, has
    another `config`, or has weights of other names or shapes.
    """
    mine, theirs = answer(*args, **kwargs), course(*args, **kwargs)
    for name in vars(course):
        is_own = getattr(answer, name, None) is not getattr(nn.Module, name, None)
        reject(name.startswith("_") or is_own, f"Your class has no `{name}`.")

    made = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
    call = f"{course.__name__}({made})"
    if hasattr(theirs, "config"):
        wanted = f"For {call} `self.config` should be {theirs.config}"
        reject(hasattr(mine, "config"), f"{wanted}, and yours has none: checkpoints store it.")
        reject(mine.config == theirs.config, f"{wanted}, and yours is {mine.config}.")

    _compare_weights(mine, theirs, call)
    mine.load_state_dict(theirs.state_dict())
    return mine.eval(), theirs.eval()


def close(a: torch.Tensor, b: torch.Tensor, rtol: float = 1e-4) -> bool:
    """Whether two tensors have the same shape and, but for rounding, the same values."""
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=rtol, atol=1e-5)


def reject_mistakes(got, *mistakes: tuple[object, str], rtol: float = 1e-4) -> None:
    """Reject a `got` that is `close` to what a mistake gives; mistakes: (that value, sentence)."""
    reject(got is not None, "Your function returns nothing: end it with `return`.")
    got = torch.as_tensor(got, dtype=torch.float64)
    for wrong, sentence in mistakes:
        reject(not close(got, torch.as_tensor(wrong, dtype=torch.float64), rtol), sentence)


def expect_shape(answer, wanted: tuple[int, ...], what: str) -> None:
    """Reject an `answer` that is no tensor of shape `wanted`; `what` it is begins the sentence."""
    is_tensor = isinstance(answer, torch.Tensor)
    reject(is_tensor, f"{what} should be a tensor, and yours is {_kind_of(answer)}.")
    shape = tuple(answer.shape)
    reject(shape == wanted, f"{what} should have shape {wanted}, and yours has {shape}.")


def _examine(body: Callable[..., str], *answers) -> tuple[bool, str]:
    """(whether the answers passed, what to say); nothing to say of a stub."""
    try:
        with torch.random.fork_rng(devices=[]):  # no cell below draws other numbers for a check
            praise = body(*answers)
    except Rejected as why:
        return False, f"✗ {why}"
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        # with words it is PyTorch's own: an operation that a device lacks, a class without forward
        if isinstance(error, NotImplementedError) and not said:
            return False, ""
        return False, f"✗ Your code raised {type(error).__name__}: {said}"

    passed = build_dir() / "progress" / body.__name__
    passed.parent.mkdir(parents=True, exist_ok=True)
    passed.touch()
    return True, f"✓ {praise}"


def _kind_of(thing) -> str:
    """What something is, as the end of a sentence."""
    if thing is None:
        return "None"
    if isinstance(thing, type):
        return f"the class {thing.__name__} itself"
    return f"of type {type(thing).__name__}"


def _expect_kind(answer, course: Callable) -> None:
    """Reject what is no class where the course has one, and no function where it has that."""
    name, yours = course.__name__, f"and yours is {_kind_of(answer)}"
    if not isinstance(course, type):
        is_function = callable(answer) and not isinstance(answer, type)
        reject(is_function, f"`{name}` should be a function, {yours}.")
        return
    made = not isinstance(answer, type) and type(answer).__name__ == name
    reject(not made, f"Hand over the class `{name}` itself; yours is an object made of it.")
    reject(isinstance(answer, type), f"`{name}` should be a class, {yours}.")
    is_network = issubclass(answer, nn.Module) or not issubclass(course, nn.Module)
    reject(is_network, f"`{name}` should be a network: `class {name}(nn.Module):`.")


def _compare_weights(mine: nn.Module, theirs: nn.Module, call: str) -> None:
    """Reject a network whose state_dict has not the names and shapes of the course's."""
    have, wanted = mine.state_dict(), theirs.state_dict()
    lacking = _parts_without(wanted, have)
    unknown = _parts_without(have, wanted)
    for part in lacking[:1]:
        unseen = getattr(mine, part, None)
        reject(
            unseen is None or isinstance(unseen, nn.Module),
            f"`{part}` is {_kind_of(unseen)}, whose weights PyTorch does not see: "
            "make it a submodule, as nn.Sequential and nn.ModuleList are.",
        )
        instead = f" They do not know your `{unknown[0]}`." if unknown else ""
        reject(False, f"Your class has no weights `{part}`, and shipped checkpoints do.{instead}")
    for part in unknown[:1]:
        reject(False, f"Your class has weights `{part}`, which shipped checkpoints do not know.")

    for key, value in wanted.items():
        right, shape = tuple(value.shape), tuple(have[key].shape)
        reject(
            shape == right, f"In {call} `{key}` should have shape {right}, and yours has {shape}."
        )


def _parts_without(keys: dict, others: dict) -> list[str]:
    """Of each of `keys` whose parts `others` lack the first such part: `encoder`, `mid.res2`."""
    parts = []
    for key in keys:
        names = key.split(".")
        begins = [".".join(names[:count]) for count in range(1, len(names) + 1)]
        parts += [b for b in begins if not any(f"{o}.".startswith(f"{b}.") for o in others)][:1]
    return parts
