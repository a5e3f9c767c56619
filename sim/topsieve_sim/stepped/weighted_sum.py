"""The weighted-sum array clock by clock: beats of a row accumulate, one output row leaves after the last."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.golden.attention_latency import AttentionLatencies, attention_latencies
from topsieve_sim.golden.weighted_sum import weighted_sum
from topsieve_sim.stepped.base import SteppedUnit
from topsieve_sim.stepped.delay import Delay


class WeightedSumArray(SteppedUnit):
    """Beats in: `(payload, last)`; beats out: `row_function(payloads)` of each row.

    A row takes a slot of the output FIFO with its first beat, so the FIFO cannot overflow.
    """

    def __init__(self, cycles: AttentionLatencies, interval: int, row_function: Callable[[Sequence[Any]], Any]) -> None:
        self.row_function = row_function
        self.interval = interval
        self.busy = 0
        self.credits = cycles.output_rows
        self.row: list[Any] = []
        self.delay = Delay(cycles.weighted_sum + interval - 1)
        self.fifo: deque[Any] = deque()

    @classmethod
    def of(cls, config: AcceleratorConfig, head_dim: int) -> WeightedSumArray:
        """The array of `config` with the golden model inside: payloads are `(probabilities, value rows)`."""

        def row(payloads: Sequence[Any]) -> Any:
            probability = np.array([[p for part, _ in payloads for p in part]], np.int64)
            value = np.array([v for _, part in payloads for v in part], np.int64)
            return tuple(int(x) for x in weighted_sum(probability, value, config.formats)[0])

        interval = config.weighted_sum.interval_cycles(config.softmax.lanes, head_dim)
        return cls(attention_latencies(config), interval, row)

    def offer(self) -> Any | None:
        return self.fifo[0] if self.fifo else None

    def accepts(self) -> bool:
        return self.busy == 0 and (bool(self.row) or self.credits > 0)

    def tick(self, taken: Any | None, sent: bool) -> None:
        if sent:
            self.fifo.popleft()
        entering = None
        self.busy = max(self.busy - 1, 0)
        if taken is not None:
            payload, last = taken
            if not self.row:
                self.credits -= 1
            self.row.append(payload)
            self.busy = self.interval - 1
            if last:
                entering = self.row
                self.row = []
        self.credits += sent
        finished = self.delay.tick(entering)
        if finished is not None:
            self.fifo.append(self.row_function(finished))
