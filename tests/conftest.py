"""Fixtures of all tests: the quick profile, one thread, no learner's file written over."""

import os
import tempfile
from pathlib import Path

import pytest

from tests.tools import common

ROOT = common.ROOT
# before any test module is imported: helpers may read these early
os.environ["COURSE_PROFILE"] = "quick"
os.environ["COURSE_BUILD"] = tempfile.mkdtemp(prefix="course-")
os.environ["TQDM_DISABLE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
for name in ("COURSE_PUBLISH", "COURSE_STATIC", "COURSE_RUNS", "COURSE_REPO"):
    os.environ.pop(name, None)


def pytest_unconfigure() -> None:
    """Remove what the tests built."""
    import shutil

    shutil.rmtree(os.environ["COURSE_BUILD"], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests first, so that the cores finish at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run side by side: more threads would only take the cores from each other."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def notebooks() -> dict[Path, dict]:
    """Every notebook of the course as plain JSON, by path."""
    return {path: common.read(path) for path in common.select([])}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `path` and has no parameters of its own runs once for each notebook."""
    if "path" in metafunc.fixturenames:
        paths = common.select([])
        metafunc.parametrize("path", paths, ids=[path.stem for path in paths])
