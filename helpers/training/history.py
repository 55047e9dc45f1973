"""What a training run leaves behind as numbers: one row per epoch."""

import csv
import io
from pathlib import Path

from helpers.env import write_file


class History:
    """One row per epoch: "epoch", "seconds", "lr", the loss terms; "val_…" of a validation set."""

    ALWAYS = ("epoch", "seconds", "lr")

    def __init__(self, rows: list[dict] | None = None):
        self.rows = rows or []

    def __getitem__(self, name: str) -> list[float]:
        """One column."""
        return [row[name] for row in self.rows]

    @property
    def seconds(self) -> float:
        return self.rows[-1]["seconds"] if self.rows else 0.0

    def table(self) -> str:
        """The rows as aligned text."""
        if not self.rows:
            return "(no epoch finished)"
        names = self._names()
        values = [[row.get(name, "") for name in names] for row in self.rows]
        cells = [names]
        for row in values:
            cells.append([f"{v:.4g}" if isinstance(v, float) else str(v) for v in row])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in cells)
        return "\n".join(lines)

    def save_csv(self, path: Path) -> None:
        """Write the rows as a table, whole or not at all."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=self._names() or ["epoch"])
        writer.writeheader()
        writer.writerows(self.rows)
        write_file(path, text.getvalue())

    def _names(self) -> list[str]:
        """Those of all rows: a resumed run may watch more than before."""
        return list(dict.fromkeys(name for row in self.rows for name in row))
