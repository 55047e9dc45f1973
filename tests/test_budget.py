"""Profiles, folders, seeds and generators, and the one-sentence error."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

import helpers
from helpers import CourseError, budget
from tests.conftest import ROOT


def python(code: str, folder=ROOT) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_course_is_quick_and_light():
    code = """
        import sys, time
        start = time.perf_counter()
        import helpers
        print(time.perf_counter() - start)
        print(*{"torch", "numpy", "diffusers", "transformers", "matplotlib"} & set(sys.modules))
    """
    seconds, heavy = python(code).splitlines()
    assert float(seconds) < 2 and heavy == ""


def test_an_error_is_one_line_in_a_notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    code = """
        from IPython.core.interactiveshell import InteractiveShell
        shell = InteractiveShell()
        shell.run_cell("from helpers import CourseError")
        shell.run_cell("try:\\n    1 / 0\\nexcept ZeroDivisionError as e:\\n    raise CourseError('One sentence.') from e")
    """
    assert python(code) == "One sentence.\n"


def test_a_notebook_of_another_version_is_told_so():
    helpers.require(helpers.__version__)
    with pytest.raises(CourseError, match="version 0 .* fresh copy"):
        helpers.require("0")


@pytest.mark.parametrize(("name", "value"), [("quick", 1), ("cpu", 2), ("gpu", 3)])
def test_the_budget_follows_the_profile(monkeypatch, name, value):
    monkeypatch.setenv("COURSE_PROFILE", name)
    assert budget.profile() == name and budget.budget(quick=1, cpu=2, gpu=3) == value


@pytest.mark.parametrize("value", ["", None])
def test_without_a_profile_the_device_decides(monkeypatch, value):
    monkeypatch.delenv("COURSE_PROFILE") if value is None else monkeypatch.setenv("COURSE_PROFILE", value)
    for kind, expected in (("cpu", "cpu"), ("cuda", "gpu"), ("mps", "gpu")):
        monkeypatch.setattr(budget, "device", lambda kind=kind: torch.device(kind))
        assert budget.profile() == expected


def test_an_unknown_profile_is_one_sentence(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "fast")
    with pytest.raises(CourseError, match="'fast'; it can be quick, cpu, gpu") as caught:
        budget.budget(quick=1, cpu=2, gpu=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "variable"),
    [("data_dir", "COURSE_DATA"), ("build_dir", "COURSE_BUILD"), ("runs_dir", "COURSE_RUNS")],
)
def test_a_relative_folder_is_taken_from_the_repository(monkeypatch, tmp_path, function, variable):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "somewhere/else")
    assert getattr(budget, function)() == ROOT / "somewhere" / "else"
    monkeypatch.setenv(variable, str(tmp_path))
    assert getattr(budget, function)() == tmp_path


def test_the_default_folders(monkeypatch):
    for variable in ("COURSE_DATA", "COURSE_BUILD", "COURSE_RUNS"):
        monkeypatch.setenv(variable, "")
    assert budget.data_dir() == ROOT / "data"
    assert budget.build_dir() == ROOT / "build" and budget.runs_dir() == ROOT / "build" / "runs"
    monkeypatch.setenv("COURSE_BUILD", "elsewhere")
    assert budget.runs_dir() == ROOT / "elsewhere" / "runs"


@pytest.mark.parametrize(("value", "static"), [("1", True), ("0", False), ("", False)])
def test_static(monkeypatch, value, static):
    monkeypatch.setenv("COURSE_STATIC", value)
    assert budget.is_static() is static


def test_seeding_reaches_every_generator():
    import random

    def draws():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002 (the one that is seeded)

    budget.seed_everything(5)
    first = draws()
    budget.seed_everything(5)
    assert draws() == first
    budget.seed_everything(6)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_the_random_state_comes_back():
    state = budget.random_state()
    first = torch.rand(3)
    budget.set_random_state(state)
    assert torch.equal(torch.rand(3), first)


def test_a_generator_depends_on_its_key_alone():
    def draw(*key):
        return torch.rand(4, generator=budget.generator_for(*key)).tolist()

    torch.manual_seed(0)
    first = draw("noise", 1, 2, 3)
    torch.manual_seed(9)
    assert draw("noise", 1, 2, 3) == first
    keys = [("noise", 1, 2, 4), ("noise", 12, 3), ("augment", 1, 2, 3), ("noise", 1, 23)]
    assert len({tuple(draw(*key)) for key in keys} | {tuple(first)}) == 5


@pytest.mark.parametrize("sampler", [torch.randn, torch.rand])
@pytest.mark.parametrize("shape", [(6,), (6, 2, 3)])
def test_processes_draw_their_rows_of_the_whole_batch(sampler, shape):
    whole = budget.draw(sampler, shape, budget.generator_for("key"))
    for count in (1, 2, 3):
        part = (6 // count, *shape[1:])
        rows = [budget.draw(sampler, part, budget.generator_for("key", shard=(i, count))) for i in range(count)]
        assert torch.equal(torch.cat(rows), whole)
    assert torch.equal(sampler(shape, generator=budget.generator_for("key")), whole)


def test_noise_like_a_tensor():
    tensor = torch.zeros(4, 3, dtype=torch.float64)
    noise = budget.randn_like(tensor, budget.generator_for("key"))
    assert noise.shape == (4, 3) and noise.dtype == torch.float64
    halves = [budget.randn_like(tensor[:2], budget.generator_for("key", shard=(i, 2))) for i in (0, 1)]
    assert torch.equal(torch.cat(halves), noise)
    assert budget.randn_like(tensor.bfloat16()).dtype == torch.bfloat16


def test_a_home_folder_is_understood(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COURSE_DATA", "~/pictures")
    assert budget.data_dir() == tmp_path / "pictures"
