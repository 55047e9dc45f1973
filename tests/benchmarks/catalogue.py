"""Which benchmarks there are, what each reads and writes below data/, and in which order they run.

A benchmark declares it in two tuples of texts, NEEDS and WRITES: "checkpoints/dogs_vae" is a file
of that name, with any ending, or a folder.  What the course's notebooks write is a need as well.
On a GPU some names end in "_gpu", and are not declared again.  Standard library only.
"""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Declared(NamedTuple):
    """What a benchmark reads and writes."""

    needs: tuple[str, ...]
    writes: tuple[str, ...]


@cache
def benchmarks(root: Path = ROOT) -> dict[str, Declared]:
    """{name, without "bench_": what it declares}, in alphabetical order."""
    paths = sorted((root / "tests" / "benchmarks").glob("bench_*.py"))
    return {path.stem.removeprefix("bench_"): _declared(path) for path in paths}


def _declared(path: Path) -> Declared:
    """NEEDS and WRITES as the source has them, so that nothing is imported."""
    found = {}
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            if name in ("NEEDS", "WRITES"):
                found[name] = ast.literal_eval(statement.value)
    return Declared(found["NEEDS"], found["WRITES"])


def writers(root: Path = ROOT) -> dict[str, str]:
    """{"results/dogs": the benchmark that writes it}."""
    return {what: name for name, (_, writes) in benchmarks(root).items() for what in writes}


def writer_of(what: str, root: Path = ROOT) -> str:
    """The benchmark that writes "results/dogs" (or, on a GPU, "results/dogs_gpu")."""
    return writers(root)[what.removesuffix("_gpu")]


def before(name: str, root: Path = ROOT) -> set[str]:
    """The benchmarks that write what `name` needs."""
    known = writers(root)
    return {known[what] for what in benchmarks(root)[name].needs if what in known}


def in_order(root: Path = ROOT) -> list[str]:
    """All benchmarks, each after those that write what it needs; else by name.

    Raises graphlib.CycleError, which names the circle, where two need each other.
    """
    sorter = TopologicalSorter({name: before(name, root) for name in benchmarks(root)})
    sorter.prepare()
    order = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += ready
        sorter.done(*ready)
    return order
