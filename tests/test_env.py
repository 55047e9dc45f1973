"""Profiles and folders, the one-sentence error, and the version of the helpers."""

import subprocess
import sys
import textwrap

import pytest
import torch

import helpers
from helpers import CourseError, env
from tests.conftest import ROOT


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_error_is_one_line_in_a_notebook(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    code = """
        from IPython.core.interactiveshell import InteractiveShell
        cell = '''
        from helpers import CourseError
        try:
            1 / 0
        except ZeroDivisionError as error:
            raise CourseError('One sentence.') from error
        '''
        InteractiveShell().run_cell(cell)
    """
    assert python(code) == "One sentence.\n"


def test_a_notebook_of_another_version_is_told_so():
    helpers.require(helpers.__version__)
    with pytest.raises(CourseError, match="version 0 .* fresh copy"):
        helpers.require("0")


@pytest.mark.parametrize(("name", "value"), [("quick", 1), ("cpu", 2), ("gpu", 3)])
def test_the_budget_follows_the_profile(monkeypatch, name, value):
    monkeypatch.setenv("COURSE_PROFILE", name)
    assert env.profile() == name and env.budget(quick=1, cpu=2, gpu=3) == value


@pytest.mark.parametrize(("kind", "expected"), [("cpu", "cpu"), ("cuda", "gpu"), ("mps", "gpu")])
def test_without_a_profile_the_device_decides(monkeypatch, kind, expected):
    monkeypatch.setattr(env, "device", lambda: torch.device(kind))
    monkeypatch.setenv("COURSE_PROFILE", "")
    assert env.profile() == expected
    monkeypatch.delenv("COURSE_PROFILE")
    assert env.profile() == expected


def test_an_unknown_profile_is_one_sentence(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "fast")
    with pytest.raises(CourseError, match="'fast'; it can be quick, cpu, gpu.$") as caught:
        env.budget(quick=1, cpu=2, gpu=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("function", "variable"),
    [
        (env.data_dir, "COURSE_DATA"),
        (env.build_dir, "COURSE_BUILD"),
        (env.runs_dir, "COURSE_RUNS"),
    ],
)
def test_a_folder_can_be_relative_absolute_or_at_home(monkeypatch, tmp_path, function, variable):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, expected in (
        ("somewhere/else", ROOT / "somewhere" / "else"),
        (str(tmp_path), tmp_path),
        ("~/pictures", tmp_path / "pictures"),
    ):
        monkeypatch.setenv(variable, given)
        assert function() == expected


def test_the_default_folders(monkeypatch):
    for variable in ("COURSE_DATA", "COURSE_BUILD", "COURSE_RUNS"):
        monkeypatch.setenv(variable, "")
    assert env.data_dir() == ROOT / "data"
    assert env.build_dir() == ROOT / "build" and env.runs_dir() == ROOT / "build" / "runs"
    monkeypatch.setenv("COURSE_BUILD", "elsewhere")
    assert env.runs_dir() == ROOT / "elsewhere" / "runs"


def test_only_publishing_writes_into_data(monkeypatch):
    monkeypatch.setenv("COURSE_BUILD", "elsewhere")
    for value, expected in (("1", ROOT / "data"), ("0", ROOT / "elsewhere")):
        monkeypatch.setenv("COURSE_PUBLISH", value)
        assert env.published_dir("results") == expected / "results"


@pytest.mark.parametrize(("value", "static"), [("1", True), ("0", False), ("", False)])
def test_static(monkeypatch, value, static):
    monkeypatch.setenv("COURSE_STATIC", value)
    assert env.is_static() is static
