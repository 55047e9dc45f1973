"""Make a notebook of a text: python build.py TEXT TEMPLATE.ipynb OUT.ipynb.

A line `@md`, `@code tag …` or `@setup` begins a cell; metadata and setup cell are the template's.
"""

import hashlib
import json
import re
import sys
from pathlib import Path


def cells_of(text: str, setup: dict) -> list[dict]:
    """The cells, without outputs."""
    cells = []
    for number, part in enumerate(re.split(r"^@(?=md|code|setup)", text, flags=re.M)[1:]):
        head, _, body = part.partition("\n")
        kind, *tags = head.split()
        body = body.strip("\n")
        cell = {
            "cell_type": "markdown" if kind == "md" else "code",
            "id": hashlib.md5(f"{number}{body}".encode()).hexdigest()[:8],
            "metadata": {"tags": tags} if tags else {},
            "source": body.splitlines(keepends=True),
        }
        if kind == "setup":
            cell |= {"metadata": setup["metadata"], "source": setup["source"]}
        if kind != "md":
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell)
    return cells


def main(text: str, template: str, out: str) -> None:
    """Write the notebook."""
    notebook = json.loads(Path(template).read_text(encoding="utf-8"))
    (setup,) = (c for c in notebook["cells"] if "setup" in c["metadata"].get("tags", []))
    notebook["cells"] = cells_of(Path(text).read_text(encoding="utf-8"), setup)
    made = json.dumps(notebook, ensure_ascii=False, indent=1)
    Path(out).write_text(made + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
