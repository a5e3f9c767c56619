"""The credit pipeline clock by clock; see `topsieve_sim.timing.pipeline` for its law."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from topsieve_sim.stepped.base import SteppedUnit


class CreditPipeline(SteppedUnit):
    """`latency` cycles of `function`, an output FIFO of `depth`, one admission each `interval` cycles."""

    def __init__(self, function: Callable[[Any], Any], latency: int, depth: int, interval: int = 1) -> None:
        if latency < 1 or depth < 1 or interval < 1:
            raise ValueError(f"latency, depth and interval must be at least 1, got {latency}, {depth}, {interval}")
        self.function = function
        # The last of the `latency` cycles is the write into the FIFO.
        self.stages: deque[Any | None] = deque([None] * (latency - 1))
        self.fifo: deque[Any] = deque()
        self.credits = depth
        self.interval = interval
        self.busy = 0

    def offer(self) -> Any | None:
        return self.fifo[0] if self.fifo else None

    def accepts(self) -> bool:
        return self.credits > 0 and self.busy == 0

    def tick(self, taken: Any | None, sent: bool) -> None:
        if sent:
            self.fifo.popleft()
            self.credits += 1
        self.busy = max(self.busy - 1, 0)
        if taken is not None:
            self.credits -= 1
            self.busy = self.interval - 1
        self.stages.append(self.function(taken) if taken is not None else None)
        finished = self.stages.popleft()
        if finished is not None:
            self.fifo.append(finished)
