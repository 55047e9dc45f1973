"""Compare two definitions as syntax trees, leaving out docstrings and annotations."""

import ast
from collections.abc import Iterator

from tests.exercises import workspace as exercises
from tests.tools import common


class _Plain(ast.NodeTransformer):
    """Removes docstrings and annotations."""

    def _without_docstring(self, node):
        self.generic_visit(node)
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return node

    visit_ClassDef = _without_docstring

    def visit_FunctionDef(self, node):
        node.returns = None
        return self._without_docstring(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):
        self.generic_visit(node)
        if node.value is not None:
            return ast.Assign([node.target], node.value)
        node.annotation = ast.Constant(...)  # a bare field of a dataclass or a named tuple
        return node


def definitions(source: str) -> dict[str, ast.stmt]:
    """The top-level classes and functions of a piece of code, by name."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name: node for node in ast.parse(source).body if isinstance(node, kinds)}


def plain(node: ast.stmt) -> str:
    """A definition as text that is equal exactly for equal code."""
    copy = ast.parse(ast.unparse(node)).body[0]
    return ast.unparse(ast.fix_missing_locations(_Plain().visit(copy)))


def written_out(notebook: dict) -> Iterator[tuple[int, str]]:
    """(cell index, code) of a notebook; of an exercise written in place it is the solution."""
    found = exercises.find(notebook)
    solutions = {exercise.index: exercise.solutions[0] for exercise in found if exercise.in_place}
    for index, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            yield index, solutions.get(index, common.text(cell))
