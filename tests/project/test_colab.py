"""The Colab rehearsal: a notebook alone in a folder fetches the course and shows its teaser."""

import os
import re
import shutil
import subprocess
import sys
import types
import warnings

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.conftest import ROOT
from tests.tools import common, publish

pytestmark = pytest.mark.slow
UNSET = {"COURSE_BUILD", "COURSE_DATA", "COURSE_RUNS", "COURSE_REPO", "PYTHONPATH", "MPLBACKEND"}


def git(*arguments: str) -> None:
    """Run git as a fresh machine would, whatever the user has configured."""
    who = [
        "-c",
        "user.name=course",
        "-c",
        "user.email=course@example.org",
        "-c",
        "commit.gpgsign=false",
    ]
    subprocess.run(["git", *who, *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    """A bare clone of the course as it is in the working tree, committed or not."""
    folder = tmp_path_factory.mktemp("origin")
    for path in common.course_files(ROOT):
        target = folder / "tree" / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    git("init", "--quiet", str(folder / "tree"))
    git("-C", str(folder / "tree"), "add", "--all")
    git("-C", str(folder / "tree"), "commit", "--quiet", "--no-verify", "-m", "the course")
    git("clone", "--quiet", "--bare", str(folder / "tree"), str(folder / "course.git"))
    return (folder / "course.git").as_uri()


def execute(notebook, folder, **env):
    """Execute `notebook` with `folder` as its kernel's folder; the error of a cell, or None."""
    env = {k: v for k, v in os.environ.items() if k not in UNSET} | env
    client = NotebookClient(
        notebook,
        timeout=180,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--IPKernelApp.log_level=50"],
    )
    try:
        client.execute(env=env)
    except CellExecutionError as error:
        return error
    return None


def only_setup(path):
    """The notebook at `path`, cut down to its setup cell."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "setup" in common.tags(cell)]
    assert len(notebook.cells) == 1
    return notebook


def shown(notebook) -> str:
    """Everything that the code cells show, without colours."""
    said = ""
    for cell in notebook.cells:
        for out in cell.get("outputs", []):
            said += out.get("text", "") + "\n".join(out.get("traceback", []))
    return re.sub(r"\x1b\[[0-9;]*m", "", said)


# the setup cells are identical (test_notebooks.py): a light notebook and the heaviest prove it
@pytest.mark.parametrize("lone", [common.select([])[0], common.select([])[-1]], ids=str)
def test_a_lone_notebook_fetches_the_course_and_shows_its_teaser(lone, address, tmp_path):
    shutil.copyfile(lone, tmp_path / lone.name)
    notebook = nbformat.read(tmp_path / lone.name, as_version=4)
    teaser = [i for i, cell in enumerate(notebook.cells) if "teaser" in common.tags(cell)]
    assert teaser, "no cell is tagged teaser"
    notebook.cells = notebook.cells[: teaser[0] + 1]
    setup = next(cell for cell in notebook.cells if "setup" in common.tags(cell))
    again = nbformat.v4.new_code_cell(common.text(setup))  # a second run uses the clone
    where = nbformat.v4.new_code_cell("print(helpers.__file__)")
    notebook.cells += [again, where]

    error = execute(notebook, tmp_path, COURSE_REPO=address, COURSE_PROFILE="quick")
    assert error is None, str(error)
    outputs = notebook.cells[teaser[0]].outputs
    assert any(kind.startswith("image/") for out in outputs for kind in out.get("data", {}))
    assert str(tmp_path / "course" / "helpers") in shown(notebook)
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == [lone.name, "course"], "it wrote beside the clone"


class Kernel(InteractiveShell):
    """A kernel without a process of its own: what a cell prints, and what it ends with."""

    def said_by(self, source: str) -> str:
        """The one sentence with which a cell stops, as a notebook shows it."""
        with capture_output() as shown, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of SystemExit: "to exit, use exit"
            done = self.run_cell(source)
        lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", shown.stdout).splitlines() if line]
        assert not done.success and "Traceback" not in shown.stdout, lines
        return lines[-1].removeprefix("SystemExit: ")


@pytest.fixture
def said(tmp_path, monkeypatch):
    """said(**environment): what the setup cell of a lone notebook in tmp_path/lone says."""
    (tmp_path / "lone").mkdir()
    monkeypatch.chdir(tmp_path / "lone")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    source = common.text(publish.setup_cell(common.read(common.select([])[0])))

    def run(**environment) -> str:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        kernel = Kernel()
        try:
            return kernel.said_by(source)
        finally:
            kernel.history_manager.end_session()

    return run


def test_the_placeholder_gives_one_sentence(said, tmp_path):
    assert "set COURSE_REPO to its address" in said(COURSE_REPO="https://github.com/OWNER/REPO")
    assert not any((tmp_path / "lone").iterdir())


@pytest.mark.parametrize("fault", ["nothing there", "no git"])
def test_a_course_that_cannot_be_fetched_is_one_sentence(said, tmp_path, monkeypatch, fault):
    bad = (tmp_path / "nowhere.git").as_uri()
    if fault == "no git":
        monkeypatch.setenv("PATH", str(tmp_path))
    assert f"git could not fetch the course from {bad}: set COURSE_REPO" in said(COURSE_REPO=bad)
    assert not any((tmp_path / "lone").iterdir())


@pytest.mark.parametrize("left", [(".git/config",), ("helpers/train_vae.py",), ("thesis.tex",)])
def test_a_half_finished_clone_and_another_folder_are_one_sentence(said, tmp_path, left):
    for name in left:
        file = tmp_path / "lone" / "course" / name
        file.parent.mkdir(parents=True)
        file.touch()
    assert said(COURSE_REPO="https://127.0.0.1:1/x").startswith("The folder `course` is not the")
    assert file.exists()


@pytest.mark.parametrize("file", [None, "helpers/__init__.py"])  # None: without __init__
def test_a_foreign_project_is_not_taken_for_the_course(said, tmp_path, monkeypatch, file):
    lone = tmp_path / "lone"
    whole = ("helpers/__init__.py", "helpers/train_vae.py", "requirements.txt")
    for path in (tmp_path / "notebooks" / "theirs", *(lone / "course" / name for name in whole)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "helpers").mkdir()  # the lone notebook lies in a project with such folders
    foreign = types.ModuleType("helpers")
    foreign.__file__ = file and str(tmp_path / file)
    monkeypatch.setitem(sys.modules, "helpers", foreign)  # imported by an earlier cell
    assert said().startswith("Another package named helpers is in the way: restart the kernel")
    assert sys.path[0] == str(lone / "course")


def test_another_version_of_the_helpers_gives_one_sentence():
    notebook = only_setup(common.select([])[0])
    changed, count = re.subn(r'require\("[^"]+"\)', 'require("0")', notebook.cells[0].source)
    assert count == 1
    notebook.cells[0].source = changed
    assert execute(notebook, common.NOTEBOOKS) is not None
    said = shown(notebook).strip()
    assert len(said.splitlines()) == 1 and "version" in said, said


def test_the_setup_cell_finds_the_course_around_it():
    notebook = only_setup(common.select([])[0])
    notebook.cells.append(nbformat.v4.new_code_cell("print(root)"))
    assert execute(notebook, common.NOTEBOOKS) is None
    assert shown(notebook).strip() == str(ROOT)


def test_the_default_address_is_the_published_one():
    (slug,) = publish.slugs(ROOT)
    for path in common.select([]):
        assert f'"https://github.com/{slug}"' in common.text(publish.setup_cell(common.read(path)))
