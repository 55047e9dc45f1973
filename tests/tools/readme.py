"""Write what stands between <!-- NAME:begin --> and <!-- NAME:end --> in README.md.

    python -m tests.tools.readme [--check]

With --check nothing is written: a difference is printed and the exit status is 1.
"""

import difflib
import re
import sys
from pathlib import Path

from helpers.env import survive_terminal, write_file
from tests.tools import common
from tests.tools.publish import BADGE, BADGE_IMAGE
from tests.tools.results_table import results, table

MARKED = re.compile(r"(<!-- (\w+):begin -->\n)(.*?)(<!-- \2:end -->)", re.DOTALL)


def course_map(root: Path) -> str:
    """The notebooks with what they build, their minutes, their download, and a Colab badge."""
    rows = []
    for path in common.select([], root / "notebooks"):
        notebook = common.read(path)
        course = notebook["metadata"].get("course", {})
        minutes = course.get("minutes", {})
        found = BADGE.search("".join(map(common.text, notebook["cells"][:1])))
        title = course.get("title") or common.heading(notebook) or path.stem
        rows.append(
            [
                path.stem.split("_")[0],
                f"[{title}](notebooks/{path.name})",
                course.get("builds", ""),
                *(minutes.get(profile, "") for profile in ("quick", "cpu", "gpu")),
                course.get("download", ""),
                f"[![Open In Colab]({BADGE_IMAGE})]({found[0]})" if found else "",
            ]
        )
    header = ["", "Notebook", "You build", "Minutes: quick", "laptop", "GPU", "Download", "Colab"]
    return table(header, rows)


GENERATORS = {"map": course_map, "results": results}


def regenerate(text: str, root: Path) -> str:
    """`text` with every marked part made anew."""

    def fresh(found: re.Match) -> str:
        begin, name, _, end = found.groups()
        if name not in GENERATORS:
            common.fail(f"README.md marks a part {name!r}, and there is no generator of that name.")
        return f"{begin}{GENERATORS[name](root)}\n{end}"

    return MARKED.sub(fresh, text)


def main(arguments: list[str], root: Path = common.ROOT) -> int:
    """Rewrite README.md, or with --check compare it."""
    survive_terminal()
    path = root / "README.md"
    if not path.exists():
        common.fail("There is no README.md to write to.")
    old = path.read_text(encoding="utf-8")
    new = regenerate(old, root)
    if "--check" not in arguments:
        if new != old:
            write_file(path, new)
        return 0
    names = ("README.md as it is", "as `make notebooks` or `make bench` would write it")
    difference = list(difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm=""))
    print(*difference, sep="\n", end="\n" if difference else "")
    return 1 if difference else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
