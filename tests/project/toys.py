"""Small notebooks for the tests of the tools."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PIXEL = (  # a PNG of one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
PICTURE = (
    "import base64\nfrom IPython.display import display\n"
    f"png = base64.b64decode('{PIXEL}')\n"
    "display({'image/png': png}, raw=True, metadata={'image/png': {'alt': 'a \"red\" dot'}})"
)


def write(path: Path, *cells, **metadata) -> Path:
    """A notebook: text is code, a pair (text, tag) is tagged code, a list is markdown."""
    made = []
    for number, cell in enumerate(cells):
        if isinstance(cell, list):
            made.append(new_markdown_cell(cell[0], id=f"cell-{number}"))
        else:
            source, *tags = (cell,) if isinstance(cell, str) else cell
            made.append(
                new_code_cell(source, id=f"cell-{number}", metadata={"tags": tags} if tags else {})
            )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=made, metadata={"kernelspec": kernel, **metadata}), path)
    return path
