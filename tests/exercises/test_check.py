"""The machinery of the checks: what is said, what is handed on, and what is noted."""

import types
from pathlib import Path

import pytest
import torch
from torch import nn

from helpers.exercises.check import exercise, expect_shape, in_place, reject, reject_mistakes, twins

HERE = "tests.exercises.test_check"


class Scale(nn.Module):
    """The course's version of a network with two submodules and a parameter."""

    def __init__(self, width: int = 4, deep: bool = False):
        super().__init__()
        self.config = {"width": width, "deep": deep}
        self.inner = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 3))
        self.factor = nn.Parameter(torch.ones(width))

    def encode(self, x):
        return self.inner(x)

    def forward(self, x):
        return self.encode(x) * self.factor.sum()


def double(x):
    """The course's version of a function."""
    return 2 * x


@in_place(f"{HERE}:Scale")
def scale(answer, course):
    """A check of a network."""
    x = torch.randn(5, 3)
    for width in (4, 6):
        mine, theirs = twins(answer, course, width, deep=True)
        reject(torch.equal(mine(x), theirs(x)), "Multiply by the factors' sum.")
    return "it scales."


@in_place(f"{HERE}:double")
def doubled(answer, course):
    """A check of a function."""
    expect_shape(answer(torch.ones(3)), (3,), "The answer")
    reject(answer(2) == course(2), "Twice, please.")
    return "twice."


@exercise
def beside(answer):
    """A check that hands nothing on."""
    reject_mistakes(answer(3), (9, "That is the square."), (3, "Nothing has changed."))
    return "right."


@pytest.fixture(autouse=True)
def build(tmp_path, monkeypatch) -> Path:
    """Where passes are noted."""
    monkeypatch.setenv("COURSE_BUILD", str(tmp_path))
    return tmp_path


@pytest.fixture
def ask(capsys, build):
    """Ask a check: (what it returns, the one line that it prints, whether the pass was noted)."""

    def asked(check, answer):
        returned = check(answer)
        said = capsys.readouterr().out
        assert said.endswith("\n") and said.count("\n") == 1, f"one sentence: {said!r}"
        mark = build / "progress" / check.__name__
        noted = mark.exists()
        mark.unlink(missing_ok=True)
        return returned, said.strip(), noted

    return asked


def stub(**methods):
    """A class like Scale in which some methods are others."""
    return type("Scale", (Scale,), methods)


def unwritten(*args, **kwargs):
    """What every stub does."""
    raise NotImplementedError


class TestBesideTheStory:
    @pytest.mark.parametrize(
        ("answer", "said", "noted"),
        [
            (unwritten, "not attempted yet: replace `raise NotImplementedError`", False),
            (lambda x: 2 * x, "✓ right.", True),
            (lambda x: x * x, "✗ That is the square.", False),
            (lambda x: None, "✗ Your function returns nothing: end it with `return`.", False),
            (lambda x: 1 / 0, "✗ Your code raised ZeroDivisionError: division by zero", False),
        ],
        ids=["stub", "right", "wrong", "nothing", "raises"],
    )
    def test_what_is_said(self, ask, answer, said, noted):
        returned, found, was_noted = ask(beside, answer)
        assert returned is None and found.startswith(said) and was_noted == noted

    def test_an_error_of_many_lines_is_one_sentence(self, ask):
        def loads(x):
            nn.Linear(1, 1).load_state_dict({})

        assert "RuntimeError: Error(s) in loading state_dict" in ask(beside, loads)[1]

    def test_what_pytorch_has_not_implemented_was_attempted(self, ask):
        said = ask(beside, lambda x: nn.Module()(x))[1]
        assert said.startswith("✗") and 'missing the required "forward"' in said


class TestInPlace:
    def test_the_learners_own_is_handed_on(self, ask):
        mine = stub()
        returned, said, noted = ask(scale, mine)
        assert returned is mine and noted
        assert said == "✓ it scales. Yours is used from here on."

    @pytest.mark.parametrize("where", ["__init__", "encode", "forward"])
    def test_a_stub_may_stop_anywhere(self, ask, where):
        returned, said, noted = ask(scale, stub(**{where: unwritten}))
        assert returned is Scale and not noted
        assert said == "not attempted yet: the course's is used from here on"

    def test_of_a_wrong_one_its_sentence_comes_first(self, ask):
        returned, said, noted = ask(scale, stub(forward=lambda self, x: self.encode(x)))
        assert returned is Scale and not noted
        assert said == "✗ Multiply by the factors' sum. The course's is used from here on."

    def test_one_that_raises_is_wrong(self, ask):
        returned, said, _ = ask(scale, stub(forward=lambda self, x: x @ x))
        assert returned is Scale
        assert said.startswith("✗ Your code raised RuntimeError: ")
        assert said.endswith("The course's is used from here on.")

    def test_the_courses_own_is_no_attempt(self, ask):
        returned, said, noted = ask(scale, Scale)
        assert returned is Scale and not noted and said.startswith("not attempted yet")

    def test_functions(self, ask):
        assert ask(doubled, unwritten)[0] is double
        assert ask(doubled, lambda x: x + 1)[0] is double

        def mine(x):
            return x + x

        assert ask(doubled, mine) == (mine, "✓ twice. Yours is used from here on.", True)

    def test_random_numbers_below_do_not_depend_on_the_answer(self, ask):
        drawn = []
        for answer in (stub(), stub(__init__=unwritten), Scale):
            torch.manual_seed(0)
            ask(scale, answer)
            drawn.append(torch.rand(()).item())
        assert len(set(drawn)) == 1


@pytest.mark.parametrize(
    ("check", "answer", "said"),
    [
        (scale, None, "`Scale` should be a class, and yours is None."),
        (scale, double, "`Scale` should be a class, and yours is of type function."),
        (scale, Scale(), "Hand over the class `Scale` itself; yours is an object made of it."),
        (scale, types.SimpleNamespace, "should be a network: `class Scale(nn.Module):`."),
        (doubled, None, "`double` should be a function, and yours is None."),
        (doubled, 4, "`double` should be a function, and yours is of type int."),
        (doubled, Scale, "`double` should be a function, and yours is the class Scale itself."),
        (doubled, lambda x: None, "The answer should be a tensor, and yours is None."),
        (doubled, lambda x: nn.Linear, "yours is the class Linear itself."),
        (doubled, lambda x: [2.0], "yours is of type list."),
        (doubled, lambda x: x[:2], "should have shape (3,), and yours has (2,)."),
    ],
)
def test_of_another_kind(ask, check, answer, said):
    assert said in ask(check, answer)[1]


def other(change):
    """A Scale of which `change` makes other weights."""

    def __init__(self, width=4, deep=False):
        Scale.__init__(self, width, deep)
        change(self, width)

    return stub(__init__=__init__)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda net, width: (setattr(net, "outer", net.inner), delattr(net, "inner")),
            "no weights `inner`, and shipped checkpoints do. They do not know your `outer`.",
        ),
        (lambda net, width: delattr(net, "factor"), "no weights `factor`, and shipped"),
        (
            lambda net, width: setattr(net, "inner", nn.Sequential(nn.Linear(3, width))),
            "no weights `inner.2`, and shipped checkpoints do.",
        ),
        (
            lambda net, width: setattr(net, "more", nn.ModuleList([nn.Linear(1, 1)])),
            "weights `more`, which shipped checkpoints do not know.",
        ),
        (
            lambda net, width: net.inner.append(nn.Linear(3, 3)),
            "weights `inner.3`, which shipped checkpoints do not know.",
        ),
        (
            lambda net, width: net.__dict__.update(inner=[net._modules.pop("inner")]),
            "`inner` is of type list, whose weights PyTorch does not see",
        ),
        (
            lambda net, width: setattr(net, "factor", nn.Parameter(torch.ones(4))),
            "In Scale(6, deep=True) `factor` should have shape (6,), and yours has (4,).",
        ),
        (
            lambda net, width: net.config.update(width=4),
            "For Scale(6, deep=True) `self.config` should be {'width': 6, 'deep': True}, "
            "and yours is {'width': 4, 'deep': True}.",
        ),
        (lambda net, width: delattr(net, "config"), "yours has none: checkpoints store it."),
    ],
    ids=[
        "another name",
        "a missing parameter",
        "a missing layer",
        "an unknown submodule",
        "an unknown layer",
        "layers in a list",
        "another shape",
        "another configuration",
        "no configuration",
    ],
)
def test_weights_that_no_checkpoint_fits(ask, change, said):
    returned, found, _ = ask(scale, other(change))
    assert returned is Scale and said in found


def test_a_missing_method_is_named(ask):
    class Lacking(nn.Module):
        def __init__(self, width=4, deep=False):
            super().__init__()

        def forward(self, x):
            return x

    assert "✗ Your class has no `encode`." in ask(scale, Lacking)[1]


def test_twins_give_the_same_and_leave_the_learners_class_alone():
    mine, theirs = twins(stub(), Scale, 6)
    assert mine is not theirs and not mine.training
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters()))
    assert len({weight.data_ptr() for net in (mine, theirs) for weight in net.parameters()}) == 10


def test_the_course_is_imported_when_it_is_asked_for():
    @in_place("helpers.no_such_file:Name")  # making the check imports nothing
    def later(answer, course):
        return "never"

    with pytest.raises(ModuleNotFoundError):
        later(double)
