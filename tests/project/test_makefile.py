"""The Makefile: one sentence where Python is wrong, a stamp only after a whole installation."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(
    shutil.which("make") is None, reason="there is no make on this machine"
)

# stands in for Python: makes an environment whose own python does what pip.sh says
PYTHON = """#!/bin/sh
if [ "$1" = -c ]; then exit ${OLD:-0}; fi
if [ "$2" = venv ]; then
  [ -n "$NO_VENV" ] && exit 1
  mkdir -p .venv/bin && cp pip.sh .venv/bin/python
fi
"""
PIP = """#!/bin/sh
if [ "$1" = -c ]; then exit 0; fi
echo "called: $*"
env > seen.txt
exit ${FAIL:-0}
"""


@pytest.fixture
def folder(tmp_path):
    """An empty course, with a stand-in for Python, in a folder whose name has a space."""
    place = tmp_path / "my course"
    place.mkdir()
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, place / name)
    for name, text in (("python.sh", PYTHON), ("pip.sh", PIP)):
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    return place


def make(folder, *arguments, **env):
    env = {"PATH": os.environ["PATH"], **env}
    command = ["make", "PYTHON=./python.sh", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def test_help_is_the_default_and_lists_every_target(folder):
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split()
    said = make(folder).stdout
    assert {
        "run",
        "test",
        "lab",
        "notebooks",
        "bench",
        "lint",
        "publish",
        "progress",
        "clean",
    } <= set(targets)
    assert [t for t in targets if f"make {t} " not in said] == []
    assert not (folder / ".venv").exists()


def test_an_old_python_is_one_sentence(folder):
    done = make(folder, "run", OLD="1")
    assert done.returncode != 0 and "needs Python 3.11 or newer" in done.stderr
    assert "Traceback" not in done.stderr and not (folder / ".venv").exists()


def test_no_venv_is_one_sentence(folder):
    done = make(folder, "run", NO_VENV="1")
    assert done.returncode != 0 and "cannot make a virtual environment" in done.stderr
    assert not (folder / ".venv").exists()


def test_a_failed_installation_leaves_no_stamp_and_is_done_again(folder):
    assert make(folder, ".venv/.installed", FAIL="1").returncode != 0
    assert not (folder / ".venv" / ".installed").exists()
    assert "pip install" in make(folder, ".venv/.installed").stdout
    assert (folder / ".venv" / ".installed").exists()
    assert "called" not in make(folder, ".venv/.installed").stdout


def test_new_requirements_are_installed(folder):
    make(folder, ".venv/.installed")
    stamp = (folder / ".venv" / ".installed").stat().st_mtime
    os.utime(folder / "requirements.txt", (stamp + 5, stamp + 5))
    assert make(folder, ".venv/.installed", FAIL="1").returncode != 0
    assert not (folder / ".venv" / ".installed").exists(), "the old stamp must not survive"


def test_pip_args_arrive_and_another_environment_does_not(folder):
    leaks = {
        "VIRTUAL_ENV": "/elsewhere",
        "PYTHONPATH": "/elsewhere",
        "COURSE_PUBLISH": "1",
    }
    done = make(folder, ".venv/.installed", PIP_ARGS="--no-deps --retries 1", **leaks)
    options = f"--no-user --target= --prefix={folder / '.venv'} --no-deps --retries 1"
    called = f"pip install --disable-pip-version-check {options} -r requirements.txt"
    assert f"called: -m {called}" in done.stdout
    seen = {line.split("=")[0] for line in (folder / "seen.txt").read_text().splitlines()}
    assert not seen & (leaks.keys() | {"PIP_ARGS"})


def test_pips_configuration_cannot_lead_out_of_the_environment(tmp_path):
    """pip itself installs a small wheel without a network; only the configuration is wrong."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=tmp_path, check=True
    )
    (tmp_path / "pip.conf").write_text(
        "[global]\nuser = true\ntarget = elsewhere\nprefix = elsewhere\n", encoding="utf-8"
    )
    with zipfile.ZipFile(tmp_path / "toy-1-py3-none-any.whl", "w") as packed:
        metadata = "Metadata-Version: 2.1\nName: toy\nVersion: 1\n"
        tag = "Wheel-Version: 1.0\nTag: py3-none-any\n"
        for name, text in {"METADATA": metadata, "WHEEL": tag, "RECORD": ""}.items():
            packed.writestr(f"toy-1.dist-info/{name}", text)

    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    given = re.search(r"^INTO_VENV := (.*)$", makefile, re.MULTILINE)[1]
    options = shlex.split(given.replace("$(CURDIR)/$(VENV)", str(tmp_path / ".venv")))
    into = [sys.executable, "-m", "pip", "--python", ".venv"]
    command = [*into, "install", "--no-index", *options, "toy-1-py3-none-any.whl"]
    env = os.environ | {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob(".venv/**/toy-1.dist-info"))) == 1
    assert not (tmp_path / "elsewhere").exists()


def test_clean_keeps_what_is_the_learners(folder):
    make(folder, ".venv/.installed")
    mine = ["checkpoints", "progress", "results", "runs"]
    for name in (*mine, "notebooks", "cache", "test"):
        (folder / "build" / name / "inside").mkdir(parents=True)
    assert make(folder, "clean").returncode == 0
    assert sorted(path.name for path in (folder / "build").iterdir()) == mine
    assert not (folder / ".venv").exists()
