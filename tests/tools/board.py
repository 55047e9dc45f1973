"""A progress line for each of several things that run at the same time."""

import sys
import threading
import time


class Board:
    """On a terminal the lines are rewritten where they stand; elsewhere a line now and then."""

    def __init__(self, names: list[str], stream=None, every: float = 20.0):
        self.stream = stream or sys.stdout
        self.lines = dict.fromkeys(names, "waiting")
        self.width = max(map(len, names), default=0)
        self.live = self.stream.isatty()
        self.every, self.shown = every, dict.fromkeys(names, 0.0)
        self.lock = threading.Lock()
        if self.live:
            self._draw(first=True)

    def _line(self, name: str) -> str:
        return f"{name:{self.width}}  {self.lines[name]}"

    def _draw(self, first: bool = False) -> None:
        up = "" if first else f"\x1b[{len(self.lines)}A"
        self.stream.write(up + "".join(f"\x1b[2K{self._line(name)}\n" for name in self.lines))
        self.stream.flush()

    def update(self, name: str, state: str, final: bool = False) -> None:
        """Set the state of one line; a final state is always shown."""
        with self.lock:
            self.lines[name] = state
            if self.live:
                self._draw()
            elif final or time.monotonic() - self.shown[name] >= self.every:
                self.shown[name] = time.monotonic()
                print(self._line(name), file=self.stream, flush=True)
