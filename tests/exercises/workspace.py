"""Run exercises outside a notebook: its setup, imports and definitions, the stub and its check."""

import ast
import contextlib
import io
import linecache
import os
import re
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

from tests.tools import common, progress, publish

KEPT = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
SOLUTION = re.compile(r"<summary>\s*Solution\s*</summary>(.*?)</details>", re.DOTALL)
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@dataclass
class Exercise:
    """One exercise of a notebook: its stub cell and the folded markdown under it."""

    name: str
    heading: str
    source: str
    folded: str
    index: int

    @property
    def solutions(self) -> list[str]:
        """The python blocks of the folded solution; there must be one."""
        found = SOLUTION.search(self.folded)
        return BLOCK.findall(found[1]) if found else []

    def split(self) -> tuple[str, str]:
        """The stub, and the lines that check it."""
        body = ast.parse(self.source).body
        stub = [statement for statement in body if not _is_check(statement)]
        check = [statement for statement in body if _is_check(statement)]
        return ast.unparse(ast.Module(stub, [])), ast.unparse(ast.Module(check, []))

    @property
    def in_place(self) -> str | None:
        """The name that the cells below use: `Name` of `Name = check.name(Name)`."""
        for statement in ast.parse(self.source).body:
            if isinstance(statement, ast.Assign) and _is_check(statement):
                return ast.unparse(statement.targets[0])
        return None

    @property
    def solved(self) -> str:
        """The cell with the folded solution in the stub's place."""
        stub, check = self.split()
        return "\n\n".join([stub, self.solutions[0].strip(), check])


def _is_check(statement: ast.stmt) -> bool:
    """Whether a line of a cell calls a check, with or without an assignment."""
    value = getattr(statement, "value", None)
    return isinstance(value, ast.Call) and ast.unparse(value.func).startswith("check.")


def find(notebook: dict) -> list[Exercise]:
    """The exercises of a notebook, in order."""
    cells, found, heading = notebook["cells"], [], ""
    for index, cell in enumerate(cells):
        if cell["cell_type"] == "markdown":
            heading = (progress.HEADING.findall(common.text(cell)) or [heading])[-1]
        elif "exercise" in common.tags(cell):
            source = common.text(cell)
            name = (progress.CHECK.findall(source) or [f"without a check, cell {index}"])[0]
            after = cells[index + 1] if index + 1 < len(cells) else {"cell_type": "", "source": ""}
            folded = common.text(after) if after["cell_type"] == "markdown" else ""
            found.append(Exercise(name, heading, source, folded, index))
    return found


@dataclass
class Workspace:
    """The names that setup, imports and definitions of one notebook make.

    Each exercise is answered in a copy of them; `after` is the copy of the last one.
    """

    path: Path
    names: dict = field(default_factory=dict)
    after: dict = field(default_factory=dict)

    def _run(self, source: str, names: dict, where: str) -> str:
        """Execute `source` in the notebook's folder; what it printed."""
        file, printed = f"<{self.path.stem} {where}>", io.StringIO()
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        with contextlib.chdir(self.path.parent), contextlib.redirect_stdout(printed):
            exec(compile(source, file, "exec"), names)
        return printed.getvalue()

    def prepare(self, notebook: dict) -> None:
        """Execute the setup cell, and of all others what only imports or defines.

        A piece that is written in place is the course's here, as in a notebook not yet worked on.
        """
        module = types.ModuleType(f"notebook_{self.path.stem}")  # dataclasses look their module up
        sys.modules[module.__name__] = module
        self.names = module.__dict__
        search = list(sys.path)
        self._run(common.text(publish.setup_cell(notebook)), self.names, "setup")
        sys.path[:] = search
        in_place = {exercise.index for exercise in find(notebook) if exercise.in_place}
        for index, cell in enumerate(notebook["cells"]):
            if cell["cell_type"] != "code" or "setup" in common.tags(cell):
                continue
            if index in in_place:
                self._run(common.text(cell), self.names, f"cell {index}")
            elif "exercise" not in common.tags(cell):
                self._define(common.text(cell), f"cell {index}")

    def _define(self, source: str, where: str) -> None:
        """Execute what a cell imports and defines."""
        for statement in ast.parse(source).body:
            if isinstance(statement, KEPT) or _is_constant(statement):
                # a definition that leans on a computed value is no part of an exercise
                with contextlib.suppress(NameError):
                    self._run(ast.unparse(statement), self.names, where)

    def answer(self, exercise: Exercise, code: str = "") -> str:
        """What the check prints when `code` (nothing: the stub) stands in the stub's place."""
        stub, check = exercise.split()
        self.after = dict(self.names)
        self._run(stub, self.after, f"stub {exercise.name}")
        self._run(code, self.after, f"answer {exercise.name}")
        return self._run(check, self.after, f"check {exercise.name}").strip()

    def ticked(self, name: str) -> bool:
        """Whether the check left its mark for `make progress`; the mark is removed."""
        mark = Path(os.environ["COURSE_BUILD"]) / "progress" / name
        there = mark.exists()
        mark.unlink(missing_ok=True)
        return there


def _is_constant(statement: ast.stmt) -> bool:
    """An assignment of a literal, such as LATENT = 2."""
    if not isinstance(statement, ast.Assign):
        return False
    try:
        ast.literal_eval(statement.value)
    except ValueError:
        return False
    return True
