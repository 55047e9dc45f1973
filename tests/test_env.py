"""Profiles and folders, the one-sentence error, and the version of the helpers."""

import errno
import multiprocessing
import os
import subprocess
import sys
import tempfile
import textwrap
import time

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
    for name in ("HOME", "USERPROFILE"):  # on Windows the second one
        monkeypatch.setenv(name, str(tmp_path))
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
    monkeypatch.setenv("COURSE_PROFILE", "cpu")
    for value, expected in (("1", ROOT / "data"), ("0", ROOT / "elsewhere")):
        monkeypatch.setenv("COURSE_PUBLISH", value)
        assert env.published_dir("results") == expected / "results"


def test_quick_publishes_nothing(monkeypatch):
    assert env.published_dir("checkpoints") == env.build_dir() / "checkpoints"
    monkeypatch.setenv("COURSE_PUBLISH", "1")
    for kind in ("results", "checkpoints"):
        with pytest.raises(CourseError, match=f"data/{kind} stays as it is. Unset COURSE_PUBLISH"):
            env.published_dir(kind)


@pytest.mark.parametrize(("value", "static"), [("1", True), ("0", False), ("", False)])
def test_static(monkeypatch, value, static):
    monkeypatch.setenv("COURSE_STATIC", value)
    assert env.is_static() is static


# --- files that two processes may write ---


def test_a_file_and_its_folder_are_written_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "folder" / "page.md"
    assert env.write_file(path, "÷\n") == path and path.read_bytes() == b"\xc3\xb7\n"
    env.write_file(path, "photos of \udcff")  # a folder's name that is no text
    assert path.read_bytes() == b"photos of ?"
    env.write_file(path, b"\0\r\n")
    assert path.read_bytes() == b"\0\r\n" and list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_the_mode_of_a_file_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        assert env.write_file(tmp_path / "a", "").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_a_full_disk_is_one_sentence_and_keeps_the_old_file(tmp_path):
    resource = pytest.importorskip("resource")  # not on Windows
    path = env.write_file(tmp_path / "results.json", "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(CourseError, match="results.json could not be written .File too") as err:
            env.write_file(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(err.value)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_may_not_be_written_to_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")  # root may write anywhere

    path = env.write_file(tmp_path / "a.csv", "old")
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(CourseError, match=r"a\.csv could not be written \(Permission denied\)"):
        env.write_file(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    with pytest.raises(CourseError, match="b could not be written"):
        env.write_file(path / "b", "new")  # below a file


def test_what_killed_processes_left_goes_after_a_while(tmp_path):
    others = ["last.mine.part", "runs.0123abcd.part"]
    for name in ("last.0123abcd.part", *others):
        (tmp_path / name).mkdir()
        (tmp_path / name / "last").write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - 3600,) * 2)
    (tmp_path / "last.89ab_def.part").mkdir()  # that process may be at work still
    env.write_file(tmp_path / "last", "whole")
    left = sorted(part.name for part in tmp_path.iterdir())
    assert left == ["last", "last.89ab_def.part", *others]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a fork may fail")
def test_processes_may_write_one_file_at_once(tmp_path):
    fork = multiprocessing.get_context("fork")
    path = tmp_path / "fingerprint.json"

    def write(text: str) -> None:
        for _ in range(40):
            env.write_file(path, text * 1000)
            assert path.read_text() in ("a" * 1000, "b" * 1000)

    children = [fork.Process(target=write, args=[text]) for text in "ab"]
    for child in children:
        child.start()
    for child in children:
        child.join(20)
    assert [child.exitcode for child in children] == [0, 0]
    assert list(tmp_path.iterdir()) == [path]


def test_a_scratch_folder_is_removed_at_the_end_even_of_a_failure(tmp_path):
    folder = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt), env.scratch_folder(folder, "download") as scratch:
        (scratch / "half").mkdir()
        assert scratch.parent == folder
        raise KeyboardInterrupt
    assert list(folder.iterdir()) == []


def test_two_that_clean_up_at_once_do_not_fail(tmp_path, monkeypatch):
    gone = tmp_path / "download.gone.part"
    monkeypatch.setattr(type(tmp_path), "glob", lambda *_: [gone])  # removed after it was listed
    with env.scratch_folder(tmp_path, "download") as scratch:
        assert scratch.is_dir()
