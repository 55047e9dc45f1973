"""A class or function that a notebook writes out is the one in helpers, so that they cannot drift apart."""

import difflib

import pytest

from tests.comparing import definitions, plain
from tests.conftest import ROOT
from tests.tools import common


@pytest.fixture(scope="module")
def public() -> dict[str, dict[str, str]]:
    """Every public name of helpers: file -> code without docstrings and annotations."""
    found: dict[str, dict[str, str]] = {}
    # in checks.py and checks_dogs.py the check of an exercise carries the name of the stub
    for file in sorted(set((ROOT / "helpers").glob("*.py")) - set((ROOT / "helpers").glob("checks*.py"))):
        for name, node in definitions(file.read_text(encoding="utf-8")).items():
            if not name.startswith("_"):
                found.setdefault(name, {})[file.name] = plain(node)
    return found


def test_definitions_equal_the_helpers(path, notebooks, public):
    for index, cell in enumerate(notebooks[path]["cells"]):
        if cell["cell_type"] != "code":
            continue
        for name, node in definitions(common.text(cell)).items():
            here, there = plain(node), public.get(name, {})
            if there and here not in there.values():
                file, other = next(iter(there.items()))
                difference = difflib.unified_diff(
                    other.split("\n"), here.split("\n"), file, f"cell {index}", lineterm=""
                )
                pytest.fail("\n".join([f"{name} differs; a simpler version needs another name", *difference]))


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
    [("y * scale", "y + scale"), ("1.0", "2.0"), ("width", "wide"), ("layer", "layers"), ("= 3", "= 4")],
)
def test_one_changed_token_counts(old, new):
    assert plain(definitions(SAME)["Net"]) != plain(definitions(OTHER.replace(old, new, 1))["Net"])


def test_bare_fields_and_decorators_count():
    base = "@dataclass(frozen=True)\nclass A:\n    x: int\n    y: int\n"
    assert plain(definitions(base)["A"]) == plain(definitions(base.replace("int", "float"))["A"])
    for changed in (base.replace("True", "False"), base.replace("    y: int\n", "")):
        assert plain(definitions(base)["A"]) != plain(definitions(changed)["A"])
