"""The house: who may import whom, what importing a model brings along, and how names are given."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.tools.common import ROOT

FLOORS = (  # from bottom to top; those of one floor may import each other, but not in a circle
    ("helpers",),
    ("helpers.env", "helpers.rng"),
    ("helpers.results",),
    ("helpers.models",),
    ("helpers.data",),
    ("helpers.metrics",),
    ("helpers.training",),
    ("helpers.classifiers",),
    ("helpers.diffusion", "helpers.diffusers_bridge"),
    ("helpers.exercises", "helpers.show"),
    ("helpers.train_vae", "helpers.train_tiny_sd"),
)
HEAVY = ("PIL", "torchvision", "accelerate", "diffusers", "transformers", "sklearn", "skimage")
HEAVY += ("matplotlib",)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {
    module_name(path): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "helpers").rglob("*.py"))
}


def floor(module: str) -> int:
    """The number of the floor that a module belongs to."""
    if module == "helpers":
        return 0
    top = ".".join(module.split(".")[:2])
    return next(number for number, floor in enumerate(FLOORS) if top in floor)


def imported(source: str) -> set[str]:
    """The modules of helpers that a source imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "helpers"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "helpers":
            # `from helpers.models import losses` imports a module, `… import CourseError` a name
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & SOURCES.keys()) or {node.module}
    return found


IMPORTS = {module: imported(source) for module, source in SOURCES.items()}


def test_every_module_has_a_floor():
    assert all(isinstance(floor(module), int) for module in SOURCES)


def test_lower_floors_never_import_higher_ones():
    up = [
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in others
        if floor(other) > floor(module)
    ]
    assert not up


def test_no_circles():
    TopologicalSorter(IMPORTS).prepare()  # raises CycleError, which names the circle


def test_the_readers_of_imports_would_see_a_fault():
    source = "def f():\n    from helpers.models import losses\n    import helpers.train_vae\n"
    assert imported(source) == {"helpers.models.losses", "helpers.train_vae"}
    assert imported("from helpers import CourseError") == {"helpers"}
    assert floor("helpers.train_vae") > floor("helpers.models.losses") > floor("helpers.rng")


def test_only_packages_hand_names_on_and_only_such_that_exist():
    for package in ("helpers.data", "helpers.training"):
        source = SOURCES[package]
        call = next(n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call))
        for keyword in call.keywords:
            names = {
                node.name
                for node in ast.parse(SOURCES[f"{package}.{keyword.arg}"]).body
                if isinstance(node, ast.FunctionDef | ast.ClassDef)
            }
            assert set(ast.literal_eval(keyword.value)) <= names, keyword.arg


def test_a_package_says_what_it_does_not_have():
    import helpers.data

    with pytest.raises(AttributeError, match="has no attribute 'load_cats'"):
        _ = helpers.data.load_cats


def test_few_rooms():
    entries = [path for path in (ROOT / "helpers").iterdir() if path.name != "__pycache__"]
    assert len(entries) - 1 <= 14, sorted(path.name for path in entries)  # beside __init__.py


@pytest.mark.parametrize("module", ["helpers.models.conv_vae", "helpers.models.variants"])
def test_a_model_brings_torch_and_nothing_else(module):
    code = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert "torch" in loaded and not loaded & set(HEAVY)
    ours = {name for name in run.stdout.split() if name.startswith("helpers.")}
    assert all(floor(name) <= floor("helpers.models") for name in ours), ours


def definitions(source: str) -> list[str]:
    """The public functions and classes of a module."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    nodes = [node for node in ast.parse(source).body if isinstance(node, kinds)]
    return [node.name for node in nodes if not node.name.startswith("_")]


def test_a_name_means_one_thing():
    """One function for each name, and no module that is named like a function.

    `main` and `run` are each command's own, and a check is named like the exercise it checks.
    """
    where: dict[str, list[str]] = {}
    for module, source in SOURCES.items():
        if not module.startswith("helpers.exercises."):
            for name in definitions(source):
                where.setdefault(name, []).append(module)
    twice = {name: modules for name, modules in where.items() if len(modules) > 1}
    assert twice.keys() <= {"main", "run", "train"}, twice
    leaves = {module.split(".")[-1] for module in SOURCES}
    assert not leaves & where.keys()
