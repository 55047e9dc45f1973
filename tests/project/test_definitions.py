"""A class or function that a notebook writes out is the one in helpers: they cannot drift apart."""

import difflib

import pytest

from tests.conftest import ROOT
from tests.exercises import workspace as exercises
from tests.project import toys
from tests.project.comparing import definitions, plain, written_out
from tests.tools import common

SIMPLER = {  # than the helpers' of the same name, and why
    "reparameterise",  # there a method of DiagonalGaussian, as is gaussian_kl
    "gaussian_kl",
    "DiagonalGaussian",  # there with a KL to any other, and here made of the two
    "GaussianCodes",  # there in double precision, and for codes that fill no more than a plane
}


@pytest.fixture(scope="module")
def public() -> dict[str, dict[str, str]]:
    """Every public name of helpers: file -> code without docstrings and annotations."""
    found: dict[str, dict[str, str]] = {}
    for file in sorted((ROOT / "helpers").rglob("*.py")):
        if file.parent.name == "exercises":  # a check carries the name of its stub
            continue
        for name, node in definitions(file.read_text(encoding="utf-8")).items():
            if not name.startswith("_"):
                where = str(file.relative_to(ROOT))
                found.setdefault(name, {})[where] = plain(node)
    return found


def drifted(notebook: dict, public: dict[str, dict[str, str]]) -> list[str]:
    """How what a notebook writes out differs from what helpers know by the same name."""
    found = []
    for index, source in written_out(notebook):
        for name, node in definitions(source).items():
            here, there = plain(node), public.get(name, {})
            if name not in SIMPLER and there and here not in there.values():
                file, other = next(iter(there.items()))
                lines = difflib.unified_diff(
                    other.split("\n"), here.split("\n"), file, f"cell {index}", lineterm=""
                )
                found.append("\n".join([f"{name} differs; name a simpler version else", *lines]))
    return found


def test_definitions_equal_the_helpers(path, notebooks, public):
    found = drifted(notebooks[path], public)
    assert not found, "\n\n".join(found)


def test_what_is_written_in_place_has_a_course_version(path, notebooks, public):
    names = {found.in_place for found in exercises.find(notebooks[path]) if found.in_place}
    assert names <= public.keys()


FOLDED = "<details><summary>Solution</summary>\n\n```python\n{}```\n\n</details>"
STUB = "def double(x):\n    raise NotImplementedError\n\n"


@pytest.mark.parametrize(
    ("check", "solution", "differs"),
    [
        ("double = check.double(double)", "def double(x):\n    return 2 * x\n", False),
        ("double = check.double(double)", "def double(x):\n    return x + x\n", True),
        ("check.double(double)", "def double(x):\n    return 2 * x\n", True),
    ],
    ids=["in place", "in place, another solution", "beside the story"],
)
def test_of_an_exercise_in_place_the_solution_counts(tmp_path, check, solution, differs):
    cell = (STUB + check, "exercise")
    path = toys.write(tmp_path / "01_toy.ipynb", cell, [FOLDED.format(solution)])
    known = {"double": {"helpers/x.py": "def double(x):\n    return 2 * x"}}
    assert bool(drifted(common.read(path), known)) == differs


SAME = '''
class Net(Module):
    """What it is."""
    width: int = 3

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        """Shapes."""
        y: Tensor = self.layer(x)  # (B, 3)
        return y * scale
'''
OTHER = """
class Net(Module):
    width = 3
    def forward(self, x, *, scale=1.0):
        y = self.layer(x)
        return (y * scale)
"""


def test_docstrings_annotations_comments_and_layout_do_not_count():
    assert plain(definitions(SAME)["Net"]) == plain(definitions(OTHER)["Net"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("y * scale", "y + scale"),
        ("1.0", "2.0"),
        ("width", "wide"),
        ("layer", "layers"),
        ("= 3", "= 4"),
    ],
)
def test_one_changed_token_counts(old, new):
    assert plain(definitions(SAME)["Net"]) != plain(definitions(OTHER.replace(old, new, 1))["Net"])


def test_bare_fields_and_decorators_count():
    base = "@dataclass(frozen=True)\nclass A:\n    x: int\n    y: int\n"
    assert plain(definitions(base)["A"]) == plain(definitions(base.replace("int", "float"))["A"])
    for changed in (base.replace("True", "False"), base.replace("    y: int\n", "")):
        assert plain(definitions(base)["A"]) != plain(definitions(changed)["A"])
