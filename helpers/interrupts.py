"""A ctrl-C that never cuts a training step in two."""

import signal
import threading
from contextlib import contextmanager


@contextmanager
def polite_interrupt():
    """An event that the first ctrl-C sets, so that a step is never cut in two; a second ctrl-C stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handler(number, frame):
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
