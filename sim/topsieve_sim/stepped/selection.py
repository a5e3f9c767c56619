"""Local value selection clock by clock: width adapter, admission gate, the top-k engine, survivor banks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.golden.attention_latency import SURVIVOR_READ, attention_latencies, beats
from topsieve_sim.stepped.base import SteppedUnit
from topsieve_sim.stepped.delay import Delay
from topsieve_sim.stepped.topk import TopKEngine, stepped_selector


class Selection(SteppedUnit):
    """Beats in and out: `(row, second_pass, index, last)`; the engine inside sees the row's real scores.

    A row enters the engine with a survivor bank reserved for it, so the engine's output never stalls. Where a beat is
    wider than the engine, an adapter feeds it in parts. With `positions`, the survivors' positions leave one by one through
    `offer_position`, and a bank is free when both the row's beats and its positions have left.

    Parameters
    ----------
    row_scores : scores of each row, non-negative.
    kept : how many to keep of each row.
    survivor_beats : beats that the survivors of a row fill.
    positions : where the survivors of a row stood.
    """

    def __init__(
        self,
        config: AcceleratorConfig,
        row_scores: Sequence[Sequence[int]],
        kept: int,
        survivor_beats: Callable[[int], int],
        positions: Callable[[int], Sequence[int]] | None = None,
    ) -> None:
        cycles = attention_latencies(config)
        selector = stepped_selector(
            config.topk.selector,
            config.topk.parallelism,
            config.formats.probability_bits,
            config.topk.seed,
            config.topk.radix_bits,
        )
        self.lanes = cycles.lanes
        self.part_lanes = min(cycles.lanes, cycles.topk_lanes)
        self.engine = TopKEngine(selector, config.capacity, self.part_lanes, cycles.banks)
        self.row_scores = row_scores
        self.kept = kept
        self.survivor_beats = survivor_beats
        self.bank_credits = cycles.survivor_banks
        self.inside = False
        self.parts: deque[tuple[tuple[int, ...], int, int, int]] = deque()
        self.names: deque[tuple[int, bool]] = deque()
        self.complete_delay = Delay(SURVIVOR_READ)
        self.survivors: deque[tuple[int, bool, int, bool]] = deque()
        self.finished_rows: set[int] = set()
        self.positions = positions
        self.waiting_positions: deque[tuple[int, bool]] = deque()
        # Rows with all beats sent, rows with all positions read; a row that is both gives its bank back.
        self.rows_gone = self.rows_read = 0

    def offer_position(self) -> tuple[int, bool] | None:
        """The position offered in this cycle and whether it is its row's last, or None."""
        return self.waiting_positions[0] if self.waiting_positions else None

    def offer(self) -> Any | None:
        return self.survivors[0] if self.survivors else None

    def _open(self) -> bool:
        """Whether the engine takes a part in this cycle: a row's first needs a survivor bank."""
        return self.engine.accepts() and (self.inside or self.bank_credits > 0)

    def accepts(self) -> bool:
        if self.part_lanes == self.lanes:
            return self._open()
        return not self.parts or (len(self.parts) == 1 and self.inside)

    def tick(self, taken: Any | None, sent: bool, position_sent: bool = False) -> None:
        part = None
        if self.part_lanes == self.lanes:
            part = self._split(taken)[0] if taken is not None else None
        elif self.parts and self._open():
            part = self.parts.popleft()
        if taken is not None:
            if taken[2] == 0:
                self.names.append(taken[:2])
            if self.part_lanes < self.lanes:
                self.parts.extend(self._split(taken))
        if part is not None:
            self.bank_credits -= not self.inside
            self.inside = not part[2]

        survivor = self.engine.offer()
        self.engine.tick(part, survivor is not None)
        complete = self.complete_delay.tick(self.names.popleft() if survivor is not None and survivor[2] else None)
        gone = sent and self.survivors.popleft()[3]
        read = gone if self.positions is None else position_sent and self.waiting_positions.popleft()[1]
        self.rows_gone += gone
        self.rows_read += read
        freed = min(self.rows_gone, self.rows_read)
        self.bank_credits += freed
        self.rows_gone -= freed
        self.rows_read -= freed
        if complete is not None:
            row, second = complete
            count = self.survivor_beats(row)
            self.survivors.extend((row, second, i, i == count - 1) for i in range(count))
            if self.positions is not None:
                places = self.positions(row)
                self.waiting_positions.extend((place, place == places[-1]) for place in places)
            self.finished_rows.add(row)

    def _split(self, beat: tuple[int, bool, int, bool]) -> list[tuple[tuple[int, ...], int, int, int]]:
        row, _, index, last = beat
        scores = self.row_scores[row][index * self.lanes : (index + 1) * self.lanes]
        count = beats(len(scores), self.part_lanes)
        parts = []
        for i in range(count):
            part = tuple(scores[i * self.part_lanes : (i + 1) * self.part_lanes])
            padded = part + (0,) * (self.part_lanes - len(part))
            parts.append((padded, len(part), int(last and i == count - 1), self.kept))
        return parts
