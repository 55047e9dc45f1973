"""How many exercises of each notebook are solved, and which one to try next.

    python -m tests.tools.progress

A check that passes leaves an empty file under build/progress (COURSE_BUILD moves it).
"""

import re
from pathlib import Path

from helpers.env import build_dir, survive_terminal
from tests.tools import common

# "check.slerp(slerp)", and of a piece written in place "Encoder = check.encoder(Encoder)"
CHECK = re.compile(r"^(?:\w+ = )?check\.(\w+)\(", re.MULTILINE)
HEADING = re.compile(r"^### (Exercise.*)$", re.MULTILINE)


def exercises(notebook: dict) -> dict[str, str]:
    """The exercises of a notebook in order: check name -> heading."""
    found, title = {}, ""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            title = (HEADING.findall(common.text(cell)) or [title])[-1]
        elif "exercise" in common.tags(cell):
            found |= dict.fromkeys(CHECK.findall(common.text(cell))[:1], title.strip())
    return found


def tally(folder: Path, solved: set[str]) -> list[str]:
    """The lines to print: one for each notebook, then the next exercise to try."""
    lines, following, total, done = [], None, 0, 0
    for path in common.select([], folder):
        known = exercises(common.read(path))
        mine = [name for name in known if name in solved]
        number, _, name = path.stem.partition("_")
        title = name.replace("_", " ")
        lines.append(f"{number} {title}: {len(mine)} of {len(known)} exercises solved")
        left = [name for name in known if name not in solved]
        if left and following is None:
            following = f"Next: notebook {number}, {known[left[0]] or left[0]}"
        total += len(known)
        done += len(mine)
    if not lines:
        return ["There are no notebooks yet."]
    everything = f"All {total} exercises solved." if total and done == total else None
    return [*lines, following or everything or "No exercises yet."]


def main() -> None:
    """Print the tally of this copy of the course."""
    survive_terminal()
    folder = build_dir() / "progress"
    solved = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    print("\n".join(tally(common.NOTEBOOKS, solved)))


if __name__ == "__main__":
    main()
