"""Every exercise in three forms: untouched, solved with its folded solution, answered wrongly."""

import pytest
import torch
from torch import nn

from tests.exercises import workspace as exercises
from tests.exercises.wrong_answers import WRONG
from tests.project.comparing import definitions
from tests.tools import common

pytestmark = pytest.mark.slow
NOTEBOOKS = {path: common.read(path) for path in common.select([])}
ALL = [(path, found) for path, notebook in NOTEBOOKS.items() for found in exercises.find(notebook)]


def of_each(kind: list) -> pytest.MarkDecorator:
    """Run a test once for each (notebook, exercise)."""
    ids = [f"{path.stem[:2]}-{exercise.name}" for path, exercise in kind]
    return pytest.mark.parametrize(("notebook", "exercise"), kind, ids=ids)


each = of_each(ALL)
each_in_place = of_each([(path, exercise) for path, exercise in ALL if exercise.in_place])


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


@each
def test_form(notebook, exercise):
    stub, check = exercise.split()
    name = exercise.in_place
    assert exercise.heading.startswith("Exercise"), "no heading '### Exercise N' above"
    assert "raise NotImplementedError\n" in f"{stub}\n", "a bare one: with words it is PyTorch's"
    assert check.startswith(f"{name} = check." if name else f"check.{exercise.name}(")
    folded = exercise.folded
    assert folded.count("<details>") == folded.count("</details>") >= 2, "hint and solution"
    assert "<summary>Hint" in folded
    assert len(exercise.solutions) == 1, (
        "exactly one python block under <summary>Solution</summary>"
    )
    assert definitions(stub).keys() <= definitions(exercise.solutions[0]).keys()


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
    assert len(answers) >= 2, f"{len(answers)} wrong answers to {exercise.name} are not enough"
    space, sentences = spaces(notebook), []
    for code, piece in answers:
        torch.manual_seed(0)
        said = space.answer(exercise, code)
        assert said.startswith("✗") and piece in said, f"{code}\ngot: {said}"
        assert len(said.splitlines()) == 1, f"one sentence, please: {said}"
        assert not space.ticked(exercise.name)
        sentences.append(said)
    assert len(set(sentences)) == len(sentences), f"the same sentence twice: {sentences}"


@each_in_place
def test_what_is_written_in_place_is_used_below(notebook, exercise, spaces):
    space, name = spaces(notebook), exercise.in_place
    space.answer(exercise)
    course = space.after[name]
    assert course.__module__.startswith("helpers."), "an unsolved stub is replaced by the course's"

    space.answer(exercise, WRONG[exercise.name][0][0])
    assert space.after[name] is course, "a wrong answer too"

    space.answer(exercise, exercise.solutions[0])
    assert space.after[name] is not course and space.after[name].__name__ == name
    space.ticked(exercise.name)


MORE = """
class Larger({name}):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.unheard_of = nn.Linear(1, 1)

{name} = Larger
"""


@each_in_place
def test_networks_written_in_place_have_the_courses_weights(notebook, exercise, spaces):
    space, name = spaces(notebook), exercise.in_place
    if isinstance(space.names[name], type) and issubclass(space.names[name], nn.Module):
        said = space.answer(exercise, exercise.solutions[0] + MORE.format(name=name))
        assert "`unheard_of`, which shipped checkpoints do not know" in said


def test_names_are_used_once_and_wrong_answers_have_an_exercise():
    names = [exercise.name for _, exercise in ALL]
    assert len(set(names)) == len(names), "two exercises share a check"
    assert WRONG.keys() <= set(names), f"no such exercise: {WRONG.keys() - set(names)}"
