"""Tables of results, as Markdown that a notebook shows."""

from collections.abc import Iterable, Sequence

from IPython.display import Markdown


def table(header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> Markdown:
    """`rows` under `header`, below a line of text; columns after the first are aligned right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    escaped = ([str(cell).replace("|", r"\|") for cell in cells] for cells in lines)
    written = "\n".join("| " + " | ".join(cells) + " |" for cells in escaped)
    return Markdown(f"{caption}\n\n{written}")


def mean_sd(found: dict, digits: int = 2) -> str:
    """ "29.71 ± 0.12" of {"mean", "sd"}, as results have it where several seeds were run."""
    return f"{found['mean']:,.{digits}f} ± {found['sd']:,.{digits}f}"
