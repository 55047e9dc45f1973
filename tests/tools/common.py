"""What the tools share: where things are, how a notebook is read.  Standard library only."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

from helpers.env import PROFILES

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"
# not the course's own files: left out where there is no git to say so
GENERATED = {
    ".git",
    ".venv",
    "build",
    "course",
    "__pycache__",
    ".ipynb_checkpoints",
    ".ruff_cache",
    ".pytest_cache",
}


def chosen_profile(default: str, publishing: bool = False) -> str:
    """`COURSE_PROFILE`; stops where there is no such profile, or where quick would be published."""
    name = os.environ.get("COURSE_PROFILE") or default
    if name not in PROFILES:
        fail(f"COURSE_PROFILE is {name!r}; it can be {', '.join(PROFILES)}.")
    if publishing and name == "quick":
        fail("The quick profile makes nothing worth publishing: unset COURSE_PROFILE.")
    return name


def fail(sentence: str) -> None:
    """Print one sentence and stop with exit status 1."""
    print(sentence, file=sys.stderr)
    raise SystemExit(1)


def select(words: list[str], folder: Path = NOTEBOOKS) -> list[Path]:
    """The notebooks that `words` name by number ("02", "2") or by name; without words all."""
    every = sorted(folder.glob("[0-9]*.ipynb"))
    if not words:
        return every
    picked = []
    for word in words:
        name = Path(word).stem
        number = name.zfill(2) if name.isdigit() else None
        found = [p for p in every if p.stem == name or p.stem.split("_")[0] == number]
        if not found:
            known = ", ".join(p.stem for p in every) or "none yet"
            fail(f"There is no notebook {word!r}; there are: {known}.")
        picked += [p for p in found if p not in picked]
    return picked


def read(path: Path) -> dict:
    """A notebook as plain JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def text(cell: dict) -> str:
    """The source of a cell, however the file splits it into lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def tags(cell: dict) -> list[str]:
    """The tags of a cell."""
    return cell.get("metadata", {}).get("tags", [])


def heading(notebook: dict) -> str:
    """The first markdown heading of a notebook, without its #."""
    for cell in notebook["cells"]:
        for line in text(cell).splitlines() if cell["cell_type"] == "markdown" else ():
            if line.startswith("# "):
                return line[2:].strip()
    return ""


def cores(at_most: int = 4) -> int:
    """How many things to run side by side; capped, because each of them loads torch."""
    available = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(at_most, available))


def threads(jobs: int) -> dict[str, str]:
    """Environment that keeps `jobs` processes from asking for more threads than there are cores."""
    each = str(max(1, cores(at_most=64) // jobs))
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), each)


def course_files(root: Path = ROOT) -> list[Path]:
    """The course's own files: what git tracks or would track; without git, all but products."""
    command = [
        "git",
        "-C",
        str(root),
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    if (root / ".git").exists():
        try:
            listed = os.fsdecode(subprocess.run(command, capture_output=True, check=True).stdout)
            return sorted(
                {root / name for name in listed.split("\0") if name and (root / name).is_file()}
            )
        except (OSError, subprocess.CalledProcessError):
            pass  # git is missing or does not trust the folder
    own_data = {root / "data" / name for name in ("README.md", "checkpoints", "results")}
    found = []
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = [
            n
            for n in folders
            if n not in GENERATED and (here != root / "data" or here / n in own_data)
        ]
        found += [here / n for n in names if here != root / "data" or here / n in own_data]
    return sorted(found)


def snapshot(root: Path = ROOT) -> dict[str, str]:
    """Path and hash of every file of the course, to be compared with a later snapshot."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in course_files(root)
    }


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """One line for each file that two snapshots do not agree on."""
    words = {(True, True): "changed", (True, False): "removed", (False, True): "new"}
    differing = sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))
    return [f"{words[p in before, p in after]}: {p}" for p in differing]
