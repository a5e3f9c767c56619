"""The top-k engine as the attention unit sees it: load a row, select for a given time, filter into a survivor bank."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from topsieve_sim.stepped.base import SteppedUnit
from topsieve_sim.stepped.delay import Delay
from topsieve_sim.timing.latencies import AttentionLatencies, beats


class Selection(SteppedUnit):
    """Beats in and out: `(row, second_pass, index, last)`.

    Parameters
    ----------
    select_cycles : cycles between the load and the filter phase of each row.
    row_keys : elements of each row; the filter reads `topk_lanes` of them a cycle.
    survivor_beats : beats that the survivors of a row fill.
    """

    def __init__(
        self,
        cycles: AttentionLatencies,
        select_cycles: list[int],
        row_keys: list[int],
        survivor_beats: Callable[[int], int],
    ) -> None:
        self.lanes = cycles.topk_lanes
        self.select_cycles = select_cycles
        self.row_keys = row_keys
        self.survivor_beats = survivor_beats
        self.bank_credits = cycles.banks
        self.loading = True
        self.name: tuple[int, bool] = (0, False)
        self.waiting = 0
        self.passes_left = 0
        self.filter_delay = Delay(cycles.filter)
        self.survivors: deque[tuple[int, bool, int, bool]] = deque()
        self.finished_rows: set[int] = set()

    def offer(self) -> Any | None:
        return self.survivors[0] if self.survivors else None

    def accepts(self) -> bool:
        return self.loading

    def tick(self, taken: Any | None, sent: bool) -> None:
        filtered = self._phase(taken)
        if sent:
            row, _, _, last = self.survivors.popleft()
            self.bank_credits += last
        complete = self.filter_delay.tick(filtered)
        if complete is not None:
            row, second = complete
            count = self.survivor_beats(row)
            self.survivors.extend((row, second, i, i == count - 1) for i in range(count))
            self.finished_rows.add(row)

    def _phase(self, taken: Any | None) -> tuple[int, bool] | None:
        """Load, select and filter; the row whose last filter pass is in this cycle."""
        if self.loading:
            if taken is not None and taken[3]:
                self.name = taken[:2]
                self.loading = False
                self.waiting = self.select_cycles[taken[0]]
            return None
        if self.passes_left == 0:
            if self.waiting > 0:
                self.waiting -= 1
                return None
            if self.bank_credits == 0:
                return None
            self.bank_credits -= 1
            self.passes_left = beats(self.row_keys[self.name[0]], self.lanes)
        self.passes_left -= 1
        if self.passes_left > 0:
            return None
        self.loading = True
        return self.name
