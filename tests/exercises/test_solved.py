"""Whole notebooks with the solutions put in: what is executed, and what counts as solved."""

import nbformat
import pytest

from tests.exercises import workspace as exercises
from tests.project import toys
from tests.tools import common, progress, solved

STUB = "def double(x):\n    raise NotImplementedError  # here\n\n"
FOLDED = """
<details><summary>Solution</summary>

```python
def double(x):
    return 2 * x
```

</details>
"""


@pytest.fixture(params=["check.double(double)", "double = check.double(double)"])
def notebook(request, tmp_path) -> dict:
    """A notebook with an exercise: beside the story, and in place."""
    cell = (STUB + request.param, "exercise")
    return common.read(
        toys.write(
            tmp_path / "01_toy.ipynb", ["### Exercise 1 · Twice"], cell, [FOLDED], "double(2)"
        )
    )


def test_an_exercise_is_taken_apart(notebook):
    (found,) = exercises.find(notebook)
    check = common.text(notebook["cells"][1]).splitlines()[-1]
    assert found.split() == ("def double(x):\n    raise NotImplementedError", check)
    assert found.in_place == ("double" if check.startswith("double =") else None)
    assert progress.exercises(notebook) == {"double": "Exercise 1 · Twice"}


def test_the_solution_stands_in_the_stubs_place(notebook):
    cells = solved.solve(notebook)["cells"]
    names = {"check": type("Check", (), {"double": staticmethod(lambda answer: answer)})}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(common.text(cell), names)
    assert names["double"](2) == 4
    assert [cell["id"] for cell in cells] == [cell["id"] for cell in notebook["cells"]]
    assert "return 2 * x" not in common.text(notebook["cells"][1]), "the notebook stays as it is"


@pytest.mark.parametrize(
    ("printed", "missing"),
    [
        (["loading …\n", "✓ twice.\n"], []),
        (["✗ Twice, please.\n"], ["double: ✗ Twice, please."]),
        (["not attempted yet\n"], ["double: not attempted yet"]),
        ([], ["double: nothing was printed"]),
    ],
)
def test_what_counts_as_solved(notebook, printed, missing):
    ran = nbformat.from_dict(notebook)
    ran.cells[1].outputs = [nbformat.v4.new_output("stream", text=line) for line in printed]
    assert solved.without_tick(ran) == missing
