"""`make publish`: the address changes everywhere, and nothing else does."""

import json
import shutil
import subprocess

import pytest

from tests.conftest import ROOT
from tests.project import toys
from tests.tools import common, publish

SETUP = (
    "import os\nREPO = os.environ.get('COURSE_REPO', \"https://github.com/OWNER/REPO\")\n"
    'if "OWNER/REPO" in REPO:\n    raise SystemExit("set REPO")'
)
BADGE = f"[![Open In Colab]({publish.BADGE_IMAGE})](https://colab.research.google.com/github/OWNER/REPO/blob/main/"


@pytest.fixture
def toy(tmp_path):
    """A course of one toy notebook."""
    path = tmp_path / "notebooks" / "01_toy.ipynb"
    toys.write(
        path,
        [f"# Toy é\n\n{BADGE}notebooks/01_toy.ipynb)\nhttps://github.com/other/thing"],
        (SETUP, "setup"),
    )
    page = f"# X\n{BADGE}notebooks/01_toy.ipynb)\ngit clone https://github.com/OWNER/REPO.git\nhttps://github.com/OWNER/REPOS"
    (tmp_path / "README.md").write_text(page, encoding="utf-8")
    return tmp_path


@pytest.fixture
def copy(tmp_path):
    """The course's own notebooks and README in another folder."""
    shutil.copytree(
        ROOT / "notebooks",
        tmp_path / "notebooks",
        ignore=shutil.ignore_patterns(".ipynb_checkpoints"),
    )
    shutil.copy(ROOT / "README.md", tmp_path / "README.md")
    return tmp_path


def contents(root) -> dict[str, str]:
    paths = [*common.select([], root / "notebooks"), root / "README.md"]
    return {path.name: path.read_bytes().decode() for path in paths}


def test_toy(toy):
    before = contents(toy)
    assert len(publish.publish(toy, "ada/course")) == 2
    after = contents(toy)
    assert after["README.md"] == before["README.md"].replace("OWNER/REPO/", "ada/course/").replace(
        "OWNER/REPO.git", "ada/course.git"
    )
    notebook = json.loads(after["01_toy.ipynb"])
    assert "google.com/github/ada/course/blob" in common.text(notebook["cells"][0])
    assert "github.com/other/thing" in common.text(notebook["cells"][0])
    setup = common.text(notebook["cells"][1])
    assert '"https://github.com/ada/course")' in setup
    assert 'if "OWNER/REPO" in REPO' in setup, "the test for the placeholder must stay"
    assert publish.publish(toy, "ada/course") == []


def test_the_placeholder_stands_everywhere_or_nowhere():
    assert len(publish.slugs(ROOT)) == 1, (
        f"badges, setup cells and README disagree: {publish.slugs(ROOT)}"
    )


def test_every_notebook_and_the_readme_are_written(copy):
    assert {path.name for path in publish.publish(copy, "ada/course-1.x")} == contents(copy).keys()
    assert publish.slugs(copy) == {"ada/course-1.x"}


def test_nothing_but_the_address_changes(copy):
    (old,) = publish.slugs(copy)
    before = contents(copy)
    publish.publish(copy, "ada/course")
    for name, text in contents(copy).items():
        if name.endswith(".ipynb"):
            was, now = json.loads(before[name]), json.loads(text)
            for a, b in zip(was["cells"], now["cells"]):
                assert publish.replaced(common.text(a), {old}, "ada/course") == common.text(b)
                assert {**a, "source": ""} == {**b, "source": ""}, (
                    "an output or a cell's metadata changed"
                )
            assert was["metadata"] == now["metadata"]
        changed = [(a, b) for a, b in zip(before[name].split("\n"), text.split("\n")) if a != b]
        assert len(before[name].split("\n")) == len(text.split("\n")) and changed
        assert all(
            a.replace(f"/{old}", "/ada/course") == b.replace(f"/{old}", "/ada/course")
            for a, b in changed
        )


def test_twice_is_the_same_as_once_and_there_is_a_way_back(copy):
    (old,) = publish.slugs(copy)
    before = contents(copy)
    publish.publish(copy, "ada/course")
    once = contents(copy)
    assert publish.publish(copy, "ada/course") == []
    publish.publish(copy, "bob/other.name")
    publish.publish(copy, "ada/course")
    assert contents(copy) == once
    publish.publish(copy, old)
    assert contents(copy) == before


@pytest.mark.parametrize(
    "address",
    [
        "https://github.com/ada/course",
        "https://github.com/ada/course.git",
        "https://name:word@github.com/ada/course.git",
        "git@github.com:ada/course.git",
        "ssh://git@github.com/ada/course.git",
        "ssh://git@github.com:22/ada/course",
    ],
)
def test_origin(tmp_path, address):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", address], check=True)
    assert publish.origin(tmp_path) == "ada/course"


def test_faults_are_one_sentence(tmp_path, toy, capsys):
    subprocess.run(["git", "init", "--quiet", str(toy)], check=True)
    with pytest.raises(SystemExit):
        publish.main([], toy)
    assert "REPO=owner/name" in capsys.readouterr().err


ADDRESSES = ("https://github.com/ada", "ada", "ada/", "a/b.git", "./.", "../..", "a/..", "a/.")
ADDRESSES += ("a.b/c", "-a/b", "a/b/c", "a/b c", "")


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_is_no_address_is_refused_and_nothing_is_written(toy, capsys, address):
    before = contents(toy)
    with pytest.raises(SystemExit):
        publish.main([address], toy)
    assert f"{address!r} is not an address of the form owner/name" in capsys.readouterr().err
    assert contents(toy) == before


@pytest.mark.parametrize("address", ["ada/course", "a-1/b.c_d-e", "a/.github", "a_b/x.gitx"])
def test_what_is_an_address_is_written(toy, address):
    publish.main([address], toy)
    assert publish.slugs(toy) == {address}
