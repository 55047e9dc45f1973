"""The runner, the gallery, the tally and the unchanged tree, on toy notebooks."""

import json
import os
import subprocess
import sys
import time
from html.parser import HTMLParser

import pytest

from tests.conftest import ROOT
from tests.project import toys
from tests.tools import common, gallery, progress, run_notebooks, run_tests

pytestmark = pytest.mark.slow


def run_tool(folder, *arguments, **env):
    command = [
        sys.executable,
        "-m",
        "tests.tools.run_notebooks",
        "--folder",
        str(folder),
        *arguments,
    ]
    env = {**os.environ, "COURSE_BUILD": str(folder.parent / "build"), **env}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """One good and one bad notebook, run as `make run` does."""
    folder = tmp_path_factory.mktemp("toy") / "notebooks"
    toys.write(
        folder / "01_good.ipynb", ["# Good\n\nBuilds *a dot*."], (toys.PICTURE, "teaser"), "1 + 1"
    )
    toys.write(folder / "02_bad.ipynb", ["# Bad"], "x = 1", "1 / 0  # never → 犬", "x")
    return folder, run_tool(folder, PYTHONIOENCODING="cp1252")  # a terminal that knows few letters


def test_a_failure_is_reported_with_its_cell_and_the_others_still_run(ran):
    _, done = ran
    assert done.returncode == 1, done.stdout + done.stderr
    assert "02_bad.ipynb failed in cell 2, which begins: 1 / 0  # never ? ?" in done.stdout
    assert "ZeroDivisionError: division by zero" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "01_good  passed" in done.stdout and "02_bad   FAILED" in done.stdout


def test_the_gallery_has_pictures_with_alt_text_times_and_badges(ran):
    folder, _ = ran
    build = folder.parent / "build"
    page = (build / "index.html").read_text(encoding="utf-8")
    assert 'alt="a &quot;red&quot; dot"' in page and "Builds a dot." in page
    assert page.count("✓ passed") == 1 and page.count("✗ failed") == 1
    assert 'href="notebooks/01_good.html"' in page and "https://" not in page
    rendered = (build / "notebooks" / "01_good.html").read_text(encoding="utf-8")
    assert [image.get("alt") for image in images(rendered)] == ['a "red" dot']
    assert "require" not in rendered.split("<style")[0]


def images(page: str) -> list[dict]:
    """The attributes of every <img> of a page."""
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: (
        found.append(dict(attributes)) if tag == "img" else None
    )
    parser.handle_startendtag = parser.handle_starttag
    parser.feed(page)
    return found


def test_a_run_leaves_the_notebooks_as_they_are(ran):
    folder, _ = ran
    assert sorted(path.name for path in folder.iterdir()) == ["01_good.ipynb", "02_bad.ipynb"]
    assert all(
        cell.get("execution_count") is None
        for cell in common.read(folder / "01_good.ipynb")["cells"]
    )


def test_in_place_stores_the_good_and_spares_the_bad(tmp_path):
    folder = tmp_path / "notebooks"
    widgets = {"application/vnd.jupyter.widget-state+json": {}}
    code = "import os, time\nprint('a', flush=True)\ntime.sleep(0.2)\n"
    code += "print(os.environ['COURSE_PROFILE'])"
    runs = f"open({str(tmp_path / 'runs')!r}, 'w').write(os.environ['COURSE_RUNS']); 2"
    good = toys.write(folder / "01_good.ipynb", ["# Good"], code, runs, widgets=widgets)
    bad = toys.write(folder / "02_bad.ipynb", "3", "1 / 0")
    noisy = toys.write(folder / "03_noisy.ipynb", "import sys; print('hm', file=sys.stderr)")
    before = {path: path.read_bytes() for path in (bad, noisy)}
    learners = str(tmp_path / "learners-runs")
    done = run_tool(folder, "--in-place", COURSE_PROFILE="", COURSE_RUNS=learners)
    assert done.returncode == 1
    assert "cell 1, which begins: 1 / 0" in done.stdout and "cell 0: hm" in done.stdout
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path.suffix for path in folder.iterdir()) == [".ipynb"] * 3
    stored = common.read(good)
    assert [cell.get("execution_count") for cell in stored["cells"]] == [None, 1, 2]
    assert [cell["id"] for cell in stored["cells"]] == ["cell-0", "cell-1", "cell-2"]
    assert "".join(stored["cells"][1]["outputs"][0]["text"]) == "a\ncpu\n"
    assert "widgets" not in stored["metadata"]
    assert all("execution" not in cell["metadata"] for cell in stored["cells"])
    # every run trains afresh and leaves no run behind
    used = (tmp_path / "runs").read_text()
    assert used != learners and used.startswith(str(tmp_path / "build"))
    assert not os.path.exists(used)

    again = good.read_bytes()
    assert run_tool(folder, "--in-place", "01", COURSE_PROFILE="gpu").returncode == 0
    assert good.read_bytes() == again.replace(b"cpu", b"gpu")


@pytest.mark.skipif(sys.platform == "win32", reason="sends a Unix signal")
def test_ctrl_c_leaves_no_kernel(tmp_path):
    import signal

    marker = tmp_path / "pid"
    code = f"import os, time\nopen({str(marker)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)"
    toys.write(tmp_path / "notebooks" / "01_long.ipynb", code)
    command = [
        sys.executable,
        "-m",
        "tests.tools.run_notebooks",
        "--folder",
        str(tmp_path / "notebooks"),
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(lambda: marker.exists() and marker.read_text(), 40)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    kernel = int(marker.read_text())
    until(lambda: not alive(kernel), 10)


def alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True
    ).stdout
    return not state.startswith("Z")


def until(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)


def test_a_notebook_is_picked_by_number_or_name(tmp_path, capsys):
    for name in ("01_one", "02_two"):
        toys.write(tmp_path / f"{name}.ipynb", "1")
    assert [p.stem for p in common.select(["2"], tmp_path)] == ["02_two"]
    assert [p.stem for p in common.select(["02", "01_one.ipynb"], tmp_path)] == ["02_two", "01_one"]
    with pytest.raises(SystemExit):
        common.select(["7"], tmp_path)
    assert "There is no notebook '7'; there are: 01_one, 02_two." in capsys.readouterr().err


def test_threads_do_not_oversubscribe(monkeypatch):
    monkeypatch.setattr(common, "cores", lambda at_most=4: 2)
    assert run_notebooks.kernel_environment(False, 2)["OMP_NUM_THREADS"] == "1"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert "OMP_NUM_THREADS" not in run_notebooks.kernel_environment(False, 1)


def test_only_in_place_publishes(monkeypatch):
    monkeypatch.setenv("COURSE_PUBLISH", "1")
    assert "COURSE_PUBLISH" not in run_notebooks.kernel_environment(False, 1)
    monkeypatch.setenv("COURSE_PROFILE", "gpu")
    assert run_notebooks.kernel_environment(True, 1)["COURSE_PUBLISH"] == "1"
    assert "COURSE_STATIC" not in run_tests.environment(
        2
    ) and "COURSE_PUBLISH" not in run_tests.environment(2)


def test_progress_counts_and_names_the_next(tmp_path):
    stub = ("def {0}(): ...\n\ncheck.{0}({0})", "exercise")
    cells = [c for n in "ab" for c in ([f"### Exercise {n}: do {n}"], (stub[0].format(n), stub[1]))]
    toys.write(tmp_path / "01_first_steps.ipynb", *cells)
    toys.write(tmp_path / "02_next.ipynb", ["### Exercise c"], (stub[0].format("c"), "exercise"))
    lines = progress.tally(tmp_path, {"a", "unknown"})
    assert lines == [
        "01 first steps: 1 of 2 exercises solved",
        "02 next: 0 of 1 exercises solved",
        "Next: notebook 01, Exercise b: do b",
    ]
    assert progress.tally(tmp_path, {"a", "b", "c"})[-1] == "All 3 exercises solved."


@pytest.mark.parametrize("with_git", [True, False])
def test_a_change_of_the_tree_is_seen_even_in_a_dirty_one(tmp_path, with_git):
    (tmp_path / "kept.txt").write_text("1")
    (tmp_path / ".gitignore").write_text("/build/\n")
    if with_git:
        subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    before = common.snapshot(tmp_path)
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "page.html").write_text("x")
    assert common.changes(before, common.snapshot(tmp_path)) == []
    (tmp_path / "kept.txt").write_text("2")
    (tmp_path / "more.txt").write_text("2")
    assert common.changes(before, common.snapshot(tmp_path)) == [
        "changed: kept.txt",
        "new: more.txt",
    ]


def test_the_title_comes_from_the_readme(tmp_path):
    assert gallery.page_title(tmp_path) == "The course"
    (tmp_path / "README.md").write_text("![x](y)\n\n# Build `it`\n")
    assert gallery.page_title(tmp_path) == "Build it"


def test_a_notebook_not_run_this_time_keeps_its_card(ran):
    folder, _ = ran
    assert run_tool(folder, "01").returncode == 0
    page = (folder.parent / "build" / "index.html").read_text(encoding="utf-8")
    assert (
        "02_bad.html" in page
        and json.loads((folder.parent / "build" / "notebooks" / "01_good.json").read_text())[
            "error"
        ]
        == ""
    )
