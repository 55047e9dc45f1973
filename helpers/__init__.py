"""The code that the notebooks share.  A map of the house, from the ground up:

    env, rng          profile, device and folders; seeds and generators
    results           measured numbers as files
    models/           what the notebooks build: distributions, losses, networks.  Read this first.
    data/             image sets, augmentation, data sets, folders of photographs, drawn dogs
    metrics/          quality of images, likelihood, what a latent holds and what it is good for
    training/         `fit` and `evaluate`, checkpoints, averaged weights, schedules, history
    classifiers/      the yardsticks: what a digit or a drawn dog shows
    diffusion/        latents and noise, the parts of a tiny Stable Diffusion, aligning two VAEs
    diffusers_bridge  the course's VAE as Hugging Face diffusers knows it, and back
    exercises/        the checks, one file per notebook
    show/             figures and explorers
    train_vae, train_tiny_sd   the two commands

Each line imports only from the lines above it (tests/test_house.py reads the imports).  Importing
this package is free: torch and the rest are imported by the files that use them.
"""

import importlib
import math

__version__ = "2"  # raised when a notebook saved earlier would no longer run with these helpers


class CourseError(Exception):
    """A fault that the learner can mend: a notebook shows its one sentence and no stack trace."""

    def _render_traceback_(self) -> list[str]:
        """IPython's hook (7.34 and newer): the lines to show in place of a stack trace."""
        return [str(self)]


def require(version: str) -> None:
    """Raise CourseError unless a notebook written for `version` can run with these helpers."""
    if version != __version__:
        raise CourseError(
            f"This notebook is of course version {version} and the helpers are of version "
            f"{__version__}: open a fresh copy of the notebook, or delete the old folder `course` "
            "and run this cell again."
        )


def check_choice(name: str, value, known) -> None:
    """CourseError that says what `name` can be, unless `value` is one of `known`."""
    if value not in known:
        raise CourseError(f"{name} is {value!r}; it can be {', '.join(map(repr, known))}.")


def check_number(
    name: str, value, low: float = -math.inf, high: float = math.inf, *, whole: bool = False
) -> None:
    """CourseError that says what `name` can be, unless `value` is finite and in [low, high)."""
    is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not is_number or not low <= value < high or math.isinf(value):
        what = "a whole number (int)" if whole else "a number (int or float)"
        what += f" of {low:g} or more" if low > -math.inf else ""
        what += f" and below {high:g}" if high < math.inf else ""
        raise CourseError(f"{name} is {value!r}; it can be {what}.")


def lazy_exports(package: str, **names_of_module: tuple[str, ...]):
    """A module's `__getattr__` that imports module=("name", …) of `package` at their first use.

    So a package hands on the few names that notebooks use, and importing it stays free.
    """
    module_of = {name: module for module, names in names_of_module.items() for name in names}

    def __getattr__(name: str):
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)

    return __getattr__
