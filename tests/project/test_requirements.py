"""requirements.txt asks for nothing that would change a package that Colab preinstalls."""

import os
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import ROOT
from tests.project.colab_versions import ADDITIONS, COLAB, PYTHON

FREEZE = ROOT.parent / "shared" / "data" / "colab-gpu-pip-freeze.txt"
LINES = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
REQUIREMENTS = [Requirement(line) for line in (raw.split("#")[0].strip() for raw in LINES) if line]
# part of the torch build: Colab's comes from PyTorch's own index, a resolution from another
OF_TORCH = re.compile(r"^(nvidia-|cuda-|triton$)")


def frozen() -> dict[str, str]:
    """Colab's list: name -> version without the local part; addresses are left out."""
    if not FREEZE.exists():
        pytest.skip("Colab's full package list does not lie beside this copy of the course")
    pairs = re.findall(r"^([\w.-]+)==([^+\s;]+)", FREEZE.read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda r: r.name)
def test_each_is_on_colab_or_a_named_addition(requirement):
    name = canonicalize_name(requirement.name)
    assert (name in COLAB) != (name in ADDITIONS)
    if name in COLAB:
        assert requirement.specifier.contains(COLAB[name]), f"Colab has {name} {COLAB[name]}"


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda r: r.name)
def test_floors_only(requirement):
    assert [s.operator for s in requirement.specifier] == [">="]
    assert requirement.url is None


def test_the_table_has_nothing_else():
    assert COLAB.keys() | ADDITIONS == {canonicalize_name(r.name) for r in REQUIREMENTS}


def test_the_table_agrees_with_the_full_list():
    full = frozen()
    assert {name: full.get(name) for name in COLAB} == COLAB
    assert not ADDITIONS & full.keys()


def conflicts(resolved: dict[str, str], full: dict[str, str]) -> list[str]:
    """The preinstalled packages that a resolution would change."""
    return [
        f"{name}: Colab has {full[name]}, the resolution takes {version}"
        for name, version in sorted(resolved.items())
        if name in full and Version(version) != Version(full[name])
    ]


@pytest.mark.slow
def test_the_full_resolution_changes_nothing(tmp_path):
    full = {name: version for name, version in frozen().items() if not OF_TORCH.search(name)}
    held = tmp_path / "colab.txt"
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--no-header",
        "--no-annotate",
    ]
    command += ["--python-version", PYTHON, "--python-platform", "x86_64-manylinux_2_28"]
    command += [str(ROOT / "requirements.txt"), "--constraint", str(held)]
    env = {
        **os.environ,
        "UV_SYSTEM_CERTS": "1",
        "UV_NATIVE_TLS": "1",
    }  # the newer and the older name
    given = dict(full)
    for _ in range(10):
        held.write_text("".join(f"{name}=={version}\n" for name, version in given.items()))
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
        if done.returncode == 0:
            break
        # a version that this index does not carry says nothing about Colab: let that one package go
        lacking = re.findall(r"no version of ([\w.-]+)(?:\[[\w,-]+\])?==", done.stderr)
        lacking = [name for name in map(canonicalize_name, lacking) if name in given]
        assert lacking, done.stderr
        for name in lacking:
            del given[name]
    assert done.returncode == 0, done.stderr
    pairs = re.findall(r"^([\w.-]+)==([^+\s;]+)", done.stdout, re.MULTILINE)
    resolved = {canonicalize_name(name): version for name, version in pairs}
    assert canonicalize_name("torch") in resolved and len(resolved) > len(REQUIREMENTS)
    assert not conflicts(resolved, given)


def test_a_conflict_would_be_seen():
    assert conflicts({"a": "1.0", "b": "2", "new": "1"}, {"a": "1.0.0", "b": "1"}) == [
        "b: Colab has 1, the resolution takes 2"
    ]
