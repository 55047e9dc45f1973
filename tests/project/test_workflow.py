"""The continuous integration file: valid, and running exactly what a learner runs."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.tools import run_tests

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
CHECK = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]


@pytest.fixture(scope="module")
def workflow() -> dict:
    import yaml

    # YAML 1.1 reads a bare `on` as a boolean
    return yaml.safe_load(WORKFLOW.read_text(encoding="utf-8").replace("\non:", '\n"on":'))


def test_schema():
    done = subprocess.run([*CHECK, str(WORKFLOW)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_check_can_fail(tmp_path):
    broken = tmp_path / "ci.yml"
    broken.write_text(WORKFLOW.read_text(encoding="utf-8").replace("runs-on:", "run-on:"))
    assert subprocess.run([*CHECK, str(broken)], capture_output=True).returncode != 0


def test_when_it_runs(workflow):
    assert {"push", "pull_request", "schedule"} <= workflow["on"].keys()
    minute, hour, day, month, weekday = workflow["on"]["schedule"][0]["cron"].split()
    assert day == month == "*", "not monthly"
    assert weekday.isdigit() and hour.isdigit() and minute.isdigit(), "but weekly"


def commands(job: dict) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_what_it_runs(workflow):
    job = workflow["jobs"]["test"]
    assert job["runs-on"].startswith("ubuntu-")
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    assert commands(job) == ["make test"]
    setup = [step for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert [step["with"]["python-version"] for step in setup] == ["${{ matrix.python }}"]


def test_other_systems_run_what_the_readme_promises_for_them(workflow):
    windows, macos = workflow["jobs"]["windows"], workflow["jobs"]["macos"]
    assert windows["runs-on"].startswith("windows-") and macos["runs-on"].startswith("macos-")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    promised = re.search(r"```bat\n(.*?)```", readme, re.DOTALL)[1].splitlines()
    *install, notebook, tests = commands(windows)
    assert [line.replace("python -m venv", "py -3.12 -m venv") for line in install] == promised[:2]
    assert notebook == f"{promised[2]} 01"
    assert tests.startswith(".venv\\Scripts\\python -m pytest")
    assert commands(macos)[0] == "make run NOTEBOOKS=01" and "Linux, macOS or WSL" in readme
    assert tests.split(" -m ")[1] == commands(macos)[1].split(" -m ")[1]
    missing = [name for name in workflow["env"]["PORTABLE"].split() if not (ROOT / name).exists()]
    assert not missing and "${{ env.PORTABLE }}" in tests


def test_no_job_runs_for_ever(workflow):
    assert all(job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())


def test_the_weekly_run_puts_the_solutions_in(workflow, monkeypatch):
    job = workflow["jobs"]["test"]
    assert job["env"]["SOLVED"] == "${{ github.event_name == 'schedule' && '1' || '' }}"
    for value in ("1", ""):
        monkeypatch.setenv("SOLVED", value)
        assert ("solved" in [name for name, _, _ in run_tests.stages(["1"])]) == (value == "1")


def test_the_local_script_runs_the_same():
    script = ROOT / ".ci" / "run"
    assert script.read_text(encoding="utf-8").splitlines()[-1] == "exec make test"
    assert os.name == "nt" or os.access(script, os.X_OK)
