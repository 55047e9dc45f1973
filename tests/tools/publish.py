"""Write the course's GitHub address into every badge, the setup cells and the README.

    python -m tests.tools.publish [owner/name]

By default the address of the remote `origin`.  Only the address changes: outputs and the layout of
the files stay as they are, and it can be repeated with another address.  Standard library only.
"""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

from helpers.env import survive_terminal, write_file
from tests.tools import common

SLUG = r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+"
BADGE_IMAGE = "https://colab.research.google.com/assets/colab-badge.svg"
BADGE = re.compile(rf"https://colab\.research\.google\.com/github/({SLUG})/blob/[\w.-]+/([^)\s]+)")
SETUP = re.compile(rf"""^REPO = .*["']https://github\.com/({SLUG}?)(?:\.git)?["']""", re.MULTILINE)
# what may be written: GitHub's own rules, and none of ./. ../.. and a/b.git
NEW = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*/(?!\.{1,2}$)[A-Za-z0-9_.-]+(?<!\.git)")
REMOTE = re.compile(rf"github\.com(?::\d+)?[:/]({SLUG}?)(?:\.git)?/?$")


def setup_cell(notebook: dict) -> dict | None:
    """The cell tagged `setup`."""
    return next((cell for cell in notebook["cells"] if "setup" in common.tags(cell)), None)


def slugs(root: Path) -> set[str]:
    """Every owner/name that badges and setup cells give now."""
    readme = root / "README.md"
    found = (
        {slug for slug, _ in BADGE.findall(readme.read_text(encoding="utf-8"))}
        if readme.exists()
        else set()
    )
    for path in common.select([], root / "notebooks"):
        notebook = common.read(path)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                found |= {slug for slug, _ in BADGE.findall(common.text(cell))}
        found |= set(SETUP.findall(common.text(setup_cell(notebook) or {"source": ""})))
    return found


def replaced(text: str, old: set[str], new: str) -> str:
    """`text` with the addresses of `old` made addresses of `new`; other repositories stay."""
    for slug in sorted(old - {new}, key=len, reverse=True):
        hosts = r"(github\.com/|colab\.research\.google\.com/github/|raw\.githubusercontent\.com/)"
        text = re.sub(rf"{hosts}{re.escape(slug)}(?![\w-])", rf"\g<1>{new}", text)
    return text


def rewrite_notebook(raw: str, old: set[str], new: str) -> str:
    """The text of a notebook file with the address changed in its sources and nowhere else."""
    notebook = json.loads(raw)
    wanted = copy.deepcopy(notebook)
    for cell, goal in zip(notebook["cells"], wanted["cells"]):
        lines = [cell["source"]] if isinstance(cell["source"], str) else cell["source"]
        fresh = [replaced(line, old, new) for line in lines]
        goal["source"] = fresh[0] if isinstance(cell["source"], str) else fresh
        for before, after in zip(lines, fresh):
            for ascii_only in (True, False) if before != after else ():
                quoted = json.dumps(before, ensure_ascii=ascii_only)
                raw = raw.replace(quoted, json.dumps(after, ensure_ascii=ascii_only))
    if json.loads(raw) != wanted:
        raise ValueError("the address also stands where it must not change, in an output")
    return raw


def publish(root: Path, new: str) -> list[Path]:
    """Write `new` everywhere under `root`, or nowhere if one file cannot be; what changed."""
    old, fresh = slugs(root), {}
    for path in [*common.select([], root / "notebooks"), root / "README.md"]:
        if not path.exists():
            continue
        raw = path.read_bytes().decode("utf-8")
        try:
            text = (
                rewrite_notebook(raw, old, new)
                if path.suffix == ".ipynb"
                else replaced(raw, old, new)
            )
        except ValueError as fault:
            common.fail(f"{path.name} was not changed, nor was any other file: {fault}.")
        if text != raw:
            fresh[path] = text
    for path, text in fresh.items():
        write_file(path, text)
    return list(fresh)


def origin(root: Path) -> str:
    """owner/name of the remote `origin`, whether its address is https or ssh."""
    command = ["git", "-C", str(root), "remote", "get-url", "origin"]
    try:
        said = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    except (OSError, subprocess.CalledProcessError):
        common.fail(
            "There is no remote `origin` to read the address from: "
            "say make publish REPO=owner/name."
        )
    found = REMOTE.search(said.stdout.strip())
    if not found:
        common.fail("The remote `origin` is not on github.com: say make publish REPO=owner/name.")
    return found[1]


def main(arguments: list[str], root: Path = common.ROOT) -> None:
    """The command line."""
    survive_terminal()
    new = arguments[0] if arguments else origin(root)
    if not NEW.fullmatch(new):
        common.fail(f"{new!r} is not an address of the form owner/name, without .git.")
    if not slugs(root):
        common.fail("There is no badge and no setup cell here to write the address to.")
    changed = publish(root, new)
    print(
        f"{new}: {len(changed)} files changed." if changed else f"{new} stands everywhere already."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
