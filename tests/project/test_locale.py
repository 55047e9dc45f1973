"""Files are UTF-8 and output survives, whatever the locale and the terminal of a machine."""

import ast
import contextlib
import io

import pytest

from helpers import train_tiny_sd, train_vae
from tests.conftest import ROOT
from tests.project import toys
from tests.tools import common, progress

OTHER_OPEN = {"Image", "os", "tarfile"}  # these open no text file


def without_encoding(source: str) -> list[str]:
    """The calls that read or write text as the locale has it: "line 3: read_text"."""
    found = []
    for call in [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]:
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        owner = getattr(getattr(call.func, "value", None), "id", "")
        named = {keyword.arg for keyword in call.keywords}
        values = [*call.args, *(k.value for k in call.keywords if k.arg == "mode")]
        strings = [v.value for v in values if isinstance(v, ast.Constant)]
        binary = any(
            isinstance(text, str) and text in ("rb", "wb", "xb", "rb+") for text in strings
        )
        as_text = {
            "read_text": not call.args,
            "write_text": len(call.args) < 2,
            "open": not binary and owner not in OTHER_OPEN,
            "NamedTemporaryFile": not binary,
            "run": "text" in named,  # of a process
            "Popen": "text" in named,
        }
        if as_text.get(name) and "encoding" not in named:
            found.append(f"line {call.lineno}: {name}")
    return found


@pytest.mark.parametrize(
    ("call", "bad"),
    [
        ("path.read_text()", True),
        ("path.read_text('utf-8')", False),
        ("path.write_text(x)", True),
        ("path.write_text(x, encoding='utf-8')", False),
        ("open(path)", True),
        ("open(path, 'w', newline='')", True),
        ("open(path, 'rb')", False),
        ("path.open()", True),
        ("path.open(mode='rb')", False),
        ("open(path, encoding='utf-8')", False),
        ("Image.open(path)", False),
        ("subprocess.run(command, text=True)", True),
        ("subprocess.run(command, encoding='utf-8')", False),
        ("tempfile.NamedTemporaryFile('w')", True),
    ],
)
def test_a_call_without_an_encoding_is_seen(call, bad):
    assert bool(without_encoding(call)) == bad


def sources():
    """(name, code) of all that learners run, and of every notebook."""
    folders = ("helpers/", "tests/tools/", "tests/benchmarks/")
    for path in common.course_files(ROOT):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(folders) and path.suffix == ".py":
            yield name, path.read_text(encoding="utf-8")
    for path in common.select([]):
        cells = [cell for cell in common.read(path)["cells"] if cell["cell_type"] == "code"]
        yield path.name, "\n".join(map(common.text, cells))


def test_every_text_file_is_read_and_written_as_utf_8():
    bad = {name: calls for name, code in sources() if (calls := without_encoding(code))}
    assert not bad, f'say encoding="utf-8" in {bad}'


# --- terminals ---


def printed(encoding: str, command, *arguments) -> str:
    """What a command prints on a terminal that knows few letters."""
    sent = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(sent, encoding, write_through=True)):
        with contextlib.suppress(SystemExit):
            command(*arguments)
        return sent.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932"])
def test_commands_print_on_any_terminal(encoding, monkeypatch, tmp_path):
    for command in (train_vae, train_tiny_sd):
        said = printed(encoding, command.main, ["--help"])
        assert said.startswith(f"usage: python -m {command.__name__}"), said

    check = ("check.encoder(encoder)", "exercise")
    toys.write(tmp_path / "01_toy.ipynb", ["# Toy"], ["### Exercise 1: é → 犬 ≥"], check)
    monkeypatch.setattr(common, "NOTEBOOKS", tmp_path)
    assert "Next: notebook 01, Exercise 1: " in printed(encoding, progress.main)


def test_every_command_that_prints_survives_its_terminal():
    silent = []
    for name, code in sources():
        if "__main__" in code and "print(" in code and name.startswith(("helpers/", "tests/tools")):
            silent += [] if "    survive_terminal()\n" in code else [name]
    assert not silent, f"{silent}: survive_terminal() first"
