"""Execute whole notebooks with every folded solution put in; all of it is kept in build/solved.

    python -m tests.tools.solved [NOTEBOOK ...]

Each notebook has to run to its end, and each of its checks to print ✓; else the exit status is 1.
"""

import json
import os
import signal
import sys

import nbformat

from helpers.env import survive_terminal, write_file
from tests.exercises import workspace as exercises
from tests.tools import common, run_notebooks


def solve(notebook: dict) -> dict:
    """A copy of a notebook, its outputs left out, with the solutions in the stubs' places."""
    solved = {exercise.index: exercise.solved for exercise in exercises.find(notebook)}
    cells = []
    for index, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            source = solved.get(index, common.text(cell))
            cell = {**cell, "source": source, "outputs": [], "execution_count": None}
        cells.append(cell)
    return {**notebook, "cells": cells}


def without_tick(notebook: nbformat.NotebookNode) -> list[str]:
    """What the check said, for each exercise of an executed notebook that it did not praise."""
    found = []
    for exercise in exercises.find(notebook):
        outputs = notebook["cells"][exercise.index]["outputs"]
        printed = [out["text"] for out in outputs if out.get("name") == "stdout"]
        said = "".join(printed).strip().splitlines() or ["nothing was printed"]
        if not said[-1].startswith("✓"):
            found.append(f"{exercise.name}: {said[-1]}")
    return found


def main(words: list[str]) -> int:
    """Write the copies, run them side by side, and report."""
    survive_terminal()
    build = common.ROOT / "build" / "solved"  # below the course, which the copies look for
    os.environ["COURSE_BUILD"] = str(build)  # the learner's progress stays what it is
    folder = build / "notebooks"
    paths = []
    for path in common.select(words):
        copy = folder / path.name
        write_file(copy, json.dumps(solve(common.read(path)), ensure_ascii=False))
        paths.append(copy)

    results = run_notebooks.run(paths)
    for result in results:
        missing = without_tick(result.notebook)
        if result.passed and missing:
            result.error = "\n".join(["checks that the solutions do not pass:", *missing])
    return run_notebooks.report(results)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main(" ".join(sys.argv[1:]).split()))
    except KeyboardInterrupt:
        run_notebooks.stop_kernels()
        sys.exit(130)
