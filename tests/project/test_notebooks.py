"""The notebook contract: what every stored notebook must be. One test for each promise."""

import ast
import json
import re

import pytest

from tests.conftest import ROOT
from tests.tools import common, publish

CARD = {  # what the card must speak of, and a pattern that shows it
    "what you will build": r"build",
    "minutes": r"minute|\bmin\b",
    "hardware": r"CPU|GPU|laptop|hardware",
    "download size": r"download",
    "what you need to know": r"need|know",
    "the result": r"result|see",
}
# what a notebook loads in any case, not in a branch, and how the card states it
DOWNLOADS = {"MNIST, 11 MB": r"^\w.*\bload_mnist\(", "93 MB": r"^\w.*\bload_dogs\("}
# a drive or a home folder: what a learner's or an author's machine would leave behind
MACHINE_PATH = re.compile(
    r"(?<![\w./:~-])/(?:home|Users|root|work|tmp|private|var|mnt|opt|usr)/[\w.-]+|[A-Z]:\\\\?Users"
)
LINK = re.compile(r"(?<!!)\[[^]]*\]\(([^)\s]+)\)")
WIDGET = "application/vnd.jupyter.widget-view+json"


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def markdown(notebook: dict) -> str:
    return "\n\n".join(
        common.text(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown"
    )


def outputs(notebook: dict):
    """(cell index, output) for every stored output."""
    for index, cell in enumerate(notebook["cells"]):
        for out in cell.get("outputs", []):
            yield index, out


def words(out: dict) -> str:
    """The text of an output, without pictures."""
    data = {k: v for k, v in out.get("data", {}).items() if k.startswith("text/")}
    return json.dumps([out.get("text", ""), data, out.get("traceback", "")], ensure_ascii=False)


def test_there_are_notebooks(notebooks):
    assert notebooks, "notebooks/ holds no numbered notebook"


def test_setup_cells_are_identical_and_short(notebooks):
    cells = {path.name: publish.setup_cell(notebook) for path, notebook in notebooks.items()}
    missing = [name for name, cell in cells.items() if cell is None]
    assert not missing, f"no cell tagged setup in {missing}"
    sources = {common.text(cell) for cell in cells.values()}
    assert len(sources) == 1, "the setup cells differ"
    assert len(sources.pop().strip().splitlines()) <= 12


def test_setup_is_the_first_code_cell(path, notebooks):
    assert "setup" in common.tags(code_cells(notebooks[path])[0])


def test_setup_installs_nothing(path, notebooks):
    assert not re.search(r"\b(pip3?|conda|uv)\b", common.text(code_cells(notebooks[path])[0]))


def test_format_kernel_and_accelerator(path, notebooks):
    notebook = notebooks[path]
    metadata = notebook["metadata"]
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert metadata["kernelspec"]["name"] == "python3"
    assert metadata["accelerator"] == "GPU" and metadata["colab"]["gpuType"] == "T4"
    identifiers = [cell["id"] for cell in notebook["cells"]]
    assert len(set(identifiers)) == len(identifiers)


def test_course_metadata(path, notebooks):
    course = notebooks[path]["metadata"].get("course", {})
    assert {"title", "minutes", "download", "builds"} <= course.keys()
    assert {"quick", "cpu", "gpu"} <= course["minutes"].keys()


def test_card(path, notebooks):
    first = notebooks[path]["cells"][0]
    assert first["cell_type"] == "markdown" and common.text(first).startswith("# ")
    missing = [
        what
        for what, shown in CARD.items()
        if not re.search(shown, common.text(first), re.IGNORECASE)
    ]
    assert not missing, f"the card does not speak of {missing}"


def test_card_and_map_state_the_same_minutes(path, notebooks):
    minutes = notebooks[path]["metadata"]["course"]["minutes"]
    row = " · ".join(f"{name} {minutes[name]}" for name in ("quick", "cpu", "gpu"))
    assert f"{row} |" in common.text(notebooks[path]["cells"][0])


def test_card_and_map_name_every_download(path, notebooks):
    code = "\n".join(map(common.text, code_cells(notebooks[path])))
    row = re.search(r"\*\*Download\*\* \| (.*) \|", common.text(notebooks[path]["cells"][0]))[1]
    stated = {"card": row, "map": notebooks[path]["metadata"]["course"]["download"]}
    loads = {what for what, call in DOWNLOADS.items() if re.search(call, code, re.MULTILINE)}
    missing = [
        (place, what) for place, said in stated.items() for what in loads if what not in said
    ]
    assert not missing, missing
    assert loads or all(said.startswith("none") for said in stated.values())


def test_badge_points_at_its_own_file(path, notebooks):
    badges = publish.BADGE.findall(common.text(notebooks[path]["cells"][0]))
    assert [file for _, file in badges] == [f"notebooks/{path.name}"]
    assert publish.BADGE_IMAGE in common.text(notebooks[path]["cells"][0])


def test_teaser(path, notebooks):
    code = code_cells(notebooks[path])
    at = [index for index, cell in enumerate(code) if "teaser" in common.tags(cell)]
    assert len(at) == 1 and at[0] <= 4, "one of the first code cells is tagged teaser"
    assert any(
        kind.startswith("image/") for out in code[at[0]]["outputs"] for kind in out.get("data", {})
    ), "the teaser shows no picture"


def test_at_least_five_exercises(path, notebooks):
    cells = [cell for cell in code_cells(notebooks[path]) if "exercise" in common.tags(cell)]
    headings = re.findall(r"^### Exercise (\d+)", markdown(notebooks[path]), re.MULTILINE)
    assert len(cells) >= 5
    assert headings == [str(number) for number in range(1, len(cells) + 1)]


def test_at_least_five_cells_are_compared(path, notebooks):
    tagged = [
        cell for cell in code_cells(notebooks[path]) if "nbval-check-output" in common.tags(cell)
    ]
    assert len(tagged) >= 5
    empty = [
        common.text(cell)[:60]
        for cell in tagged
        if not cell["execution_count"] or not cell["outputs"]
    ]
    assert not empty, f"nbval passes these silently, they have no stored output: {empty}"


def test_code_cells_are_short(path, notebooks):
    long = [
        (index, len(common.text(cell).splitlines()))
        for index, cell in enumerate(notebooks[path]["cells"])
        if cell["cell_type"] == "code" and len(common.text(cell).splitlines()) >= 35
    ]
    assert not long, f"(cell, lines): {long}"


def test_execution_counts_run_from_one(path, notebooks):
    counts = [cell["execution_count"] for cell in code_cells(notebooks[path])]
    assert counts == list(range(1, len(counts) + 1))


def test_no_errors_and_no_stderr(path, notebooks):
    bad = [
        (index, words(out)[:120])
        for index, out in outputs(notebooks[path])
        if out["output_type"] == "error" or out.get("name") == "stderr"
    ]
    assert not bad


def test_no_machine_paths(path, notebooks):
    sources = [(index, common.text(cell)) for index, cell in enumerate(notebooks[path]["cells"])]
    shown = [(index, words(out)) for index, out in outputs(notebooks[path])]
    bad = [
        (index, found[0])
        for index, said in sources + shown
        for found in MACHINE_PATH.finditer(said)
    ]
    assert not bad


def test_no_widgets_and_no_timing_are_stored(path, notebooks):
    assert "widgets" not in notebooks[path]["metadata"]
    assert not [index for index, out in outputs(notebooks[path]) if WIDGET in out.get("data", {})]
    assert not [cell["id"] for cell in notebooks[path]["cells"] if "execution" in cell["metadata"]]


def test_size(path):
    assert path.stat().st_size <= 3_000_000


def test_every_picture_has_alt_text(path, notebooks):
    bad = []
    for index, out in outputs(notebooks[path]):
        for kind in out.get("data", {}):
            if (
                kind.startswith("image/")
                and not out.get("metadata", {}).get(kind, {}).get("alt", "").strip()
            ):
                bad.append((index, kind))
    assert not bad, f"pictures without alt text (cell, kind): {bad}"


def test_markdown_pictures_have_alt_text(path, notebooks):
    assert not re.findall(r"!\[\s*\]\([^)]*\)", markdown(notebooks[path]))


def test_links_name_files_that_exist(path, notebooks):
    bad = []
    for target in LINK.findall(markdown(notebooks[path])):
        target = target.split("#")[0]
        if target and "://" not in target and not target.startswith("mailto:"):
            bad += [] if (path.parent / target).exists() else [target]
    bad += [
        file
        for _, file in publish.BADGE.findall(markdown(notebooks[path]))
        if not (ROOT / file).exists()
    ]
    assert not bad


def test_only_notebooks_that_exist_are_named(path, notebooks):
    known = {other.stem for other in notebooks}
    named = set(re.findall(r"\b0\d_[a-z][a-z_]+\b", markdown(notebooks[path])))
    assert named <= known


@pytest.mark.parametrize("heading", ["Questions people ask", "Recap"])
def test_closing_sections(path, notebooks, heading):
    headings = re.findall(r"^##+ (.*)$", markdown(notebooks[path]), re.MULTILINE)
    at = [index for index, found in enumerate(headings) if heading.lower() in found.lower()]
    assert at, f"there is no section {heading!r}"
    assert at[-1] >= len(headings) / 2, f"{heading!r} belongs near the end"


def test_code_parses_without_magics(path, notebooks):
    for cell in code_cells(notebooks[path]):
        ast.parse(common.text(cell))


@pytest.mark.parametrize(
    ("said", "bad"),
    [
        ("see /home/me/course", True),
        ("saved to '/tmp/x.png'", True),
        (r"C:\\Users\\me", True),
        ("https://github.com/a/b/tmp/x", False),
        ("(B, 4, H/8, W/8)", False),
        ("data/MNIST/raw", False),
    ],
)
def test_machine_path_pattern(said, bad):
    assert bool(MACHINE_PATH.search(said)) == bad
