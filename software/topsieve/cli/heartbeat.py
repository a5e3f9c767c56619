"""A sign of life on stderr while something takes long."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# Short enough that nobody thinks of Ctrl-C; work that is done before is not worth a line.
PERIOD_S = 5.0


@contextmanager
def heartbeat(what: str, period_s: float = PERIOD_S) -> Iterator[None]:
    """Print `what` and the seconds since the begin to stderr every `period_s` seconds, and once more at the end.

    Nothing is printed about work that takes less than one period.
    """
    begin = time.monotonic()
    ended = threading.Event()

    def say(state: str) -> None:
        print(f"{what}: {state}{time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)

    def beat() -> None:
        while not ended.wait(period_s):
            say("")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if time.monotonic() - begin >= period_s:
            say("ended after ")
