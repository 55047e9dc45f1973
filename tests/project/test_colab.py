"""The Colab rehearsal: a notebook alone in a folder fetches the course and shows its teaser."""

import os
import re
import shutil
import subprocess

import nbformat
import pytest
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


def test_the_placeholder_gives_one_sentence(tmp_path):
    notebook = only_setup(common.select([])[0])
    error = execute(notebook, tmp_path, COURSE_REPO="https://github.com/OWNER/REPO")
    assert error is not None and "COURSE_REPO" in error.evalue
    assert "Traceback" not in shown(notebook) and "File " not in shown(notebook)
    assert list(tmp_path.iterdir()) == []


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
