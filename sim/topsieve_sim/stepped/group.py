"""What the clock-by-clock references of attention groups share: the clock."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from topsieve_sim.stepped.fetched_memory import FetchedMemory
from topsieve_sim.stepped.memory import IdealMemory


class SteppedGroup(ABC):
    """One attention group, from an idle machine to its last output row.

    `rows` output rows leave; `log` has a line of cycles for each pass of a row; `total_cycles` is known after `run`.
    """

    rows: int
    total_cycles: int
    log: list[dict[str, int]]
    memory: IdealMemory | FetchedMemory

    def run(
        self, memory_ready: Sequence[bool], output_ready: Sequence[bool], limit_cycles: int = 200_000
    ) -> list[dict[str, int]]:
        """Clock until every output row has left and the memory is idle; both patterns are true beyond their end.

        Raises
        ------
        RuntimeError
            `limit_cycles` passed.
        """
        left = 0
        for cycle in range(limit_cycles):
            if left == self.rows and self.memory.drained:
                self.total_cycles = cycle
                return self.log
            memory = bool(memory_ready[cycle]) if cycle < len(memory_ready) else True
            output = bool(output_ready[cycle]) if cycle < len(output_ready) else True
            left += self._clock(cycle, memory, output)
        raise RuntimeError(f"no end within {limit_cycles} cycles: {left} of {self.rows} rows left")

    @abstractmethod
    def _clock(self, cycle: int, memory_ready: bool, output_ready: bool) -> bool:
        """One cycle; whether an output row left."""
