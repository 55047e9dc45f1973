"""Every exercise in three forms: untouched, solved with its folded solution, and answered wrongly."""

import ast

import pytest
import torch

from tests import exercises
from tests.tools import common
from tests.wrong_answers import WRONG

pytestmark = pytest.mark.slow
NOTEBOOKS = {path: common.read(path) for path in common.select([])}
ALL = [(path, exercise) for path, notebook in NOTEBOOKS.items() for exercise in exercises.find(notebook)]
IDS = [f"{path.stem[:2]}-{exercise.name}" for path, exercise in ALL]
each = pytest.mark.parametrize(("notebook", "exercise"), ALL, ids=IDS)


@pytest.fixture(scope="module")
def spaces():
    """A prepared workspace for each notebook, made when first asked for."""
    made = {}

    def get(path):
        if path not in made:
            made[path] = exercises.Workspace(path)
            made[path].prepare(NOTEBOOKS[path])
        torch.manual_seed(0)
        return made[path]

    return get


def defined(code: str) -> set[str]:
    return {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


@each
def test_form(notebook, exercise):
    stub, check = exercise.split()
    assert exercise.heading.startswith("Exercise"), "no heading '### Exercise N' above"
    assert "raise NotImplementedError" in stub and check.startswith(f"check.{exercise.name}(")
    assert exercise.folded.count("<details>") == exercise.folded.count("</details>") >= 2, "hint and solution"
    assert "<summary>Hint" in exercise.folded
    assert len(exercise.solutions) == 1, "exactly one python block under <summary>Solution</summary>"
    assert defined(stub) <= defined(exercise.solutions[0])


@each
def test_unsolved(notebook, exercise, spaces):
    space = spaces(notebook)
    said = space.answer(exercise)
    assert said.startswith("not attempted yet") and len(said.splitlines()) == 1, said
    assert not space.ticked(exercise.name)


@each
def test_solved(notebook, exercise, spaces):
    space = spaces(notebook)
    said = space.answer(exercise, exercise.solutions[0])
    assert said.startswith("✓"), said
    assert space.ticked(exercise.name), "make progress would not see it"


@each
def test_wrong_answers_get_their_own_sentence(notebook, exercise, spaces):
    answers = WRONG.get(exercise.name, [])
    assert len(answers) >= 2, f"tests/wrong_answers.py has {len(answers)} wrong answers to {exercise.name}"
    space, sentences = spaces(notebook), []
    for code, piece in answers:
        torch.manual_seed(0)
        said = space.answer(exercise, code)
        assert piece in said and "✓" not in said and "not attempted" not in said, f"{code}\ngot: {said}"
        assert len(said.splitlines()) == 1, f"one sentence, please: {said}"
        assert not space.ticked(exercise.name)
        sentences.append(said)
    assert len(set(sentences)) == len(sentences), f"the same sentence twice: {sentences}"


def test_names_are_used_once_and_wrong_answers_have_an_exercise():
    names = [exercise.name for _, exercise in ALL]
    assert len(set(names)) == len(names), "two exercises share a check"
    assert WRONG.keys() <= set(names), f"no such exercise: {WRONG.keys() - set(names)}"
