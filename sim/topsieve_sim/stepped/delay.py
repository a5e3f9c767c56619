"""A fixed delay: what enters in cycle t can be used from cycle t + `cycles` on."""

from __future__ import annotations

from collections import deque
from typing import Any


class Delay:
    """`cycles` - 1 register stages; the register it ends in belongs to the caller."""

    def __init__(self, cycles: int) -> None:
        if cycles < 1:
            raise ValueError(f"a delay must be at least 1 cycle, got {cycles}")
        self.stages: deque[Any | None] = deque([None] * (cycles - 1))

    def tick(self, entering: Any | None) -> Any | None:
        """The clock edge: what leaves, usable from the next cycle on."""
        self.stages.append(entering)
        return self.stages.popleft()
