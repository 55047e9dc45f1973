"""Run exercises outside a notebook: only its setup, imports, definitions, the stub and its check."""

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
        is_check = [isinstance(s, ast.Expr) and ast.unparse(s).startswith("check.") for s in body]
        parts = ([s for s, c in zip(body, is_check) if c == wanted] for wanted in (False, True))
        stub, check = (ast.unparse(ast.Module(part, [])) for part in parts)
        return stub, check


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
    """The names that setup, imports and definitions of one notebook make, each exercise in a copy of them."""

    path: Path
    names: dict = field(default_factory=dict)

    def _run(self, source: str, names: dict, where: str) -> str:
        """Execute `source` in the notebook's folder; what it printed."""
        file, printed = f"<{self.path.stem} {where}>", io.StringIO()
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        with contextlib.chdir(self.path.parent), contextlib.redirect_stdout(printed):
            exec(compile(source, file, "exec"), names)
        return printed.getvalue()

    def prepare(self, notebook: dict) -> None:
        """Execute the setup cell, and of all others what only imports or defines."""
        module = types.ModuleType(f"notebook_{self.path.stem}")  # dataclasses look their module up
        sys.modules[module.__name__], self.names = module, module.__dict__
        search = list(sys.path)
        self._run(common.text(publish.setup_cell(notebook)), self.names, "setup")
        sys.path[:] = search
        for index, cell in enumerate(notebook["cells"]):
            if cell["cell_type"] != "code" or {"exercise", "setup"} & set(common.tags(cell)):
                continue
            for statement in ast.parse(common.text(cell)).body:
                if isinstance(statement, KEPT) or _is_constant(statement):
                    # a definition that leans on a computed value is no part of an exercise
                    with contextlib.suppress(NameError):
                        self._run(ast.unparse(statement), self.names, f"cell {index}")

    def answer(self, exercise: Exercise, code: str = "") -> str:
        """What the check prints when `code` (nothing: the stub) stands in the stub's place."""
        stub, check = exercise.split()
        names = dict(self.names)
        self._run(stub, names, f"stub {exercise.name}")
        self._run(code, names, f"answer {exercise.name}")
        return self._run(check, names, f"check {exercise.name}").strip()

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
