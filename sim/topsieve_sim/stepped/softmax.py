"""The softmax unit clock by clock: score buffer, exponentials, reciprocal and decision, normalisation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.golden.attention_latency import AttentionLatencies, attention_latencies
from topsieve_sim.golden.progressive import needs_lsb
from topsieve_sim.golden.softmax import softmax
from topsieve_sim.stepped.base import SteppedUnit
from topsieve_sim.stepped.delay import Delay


@dataclass(frozen=True)
class ScoreBeat:
    """`payload` is what the row function takes: the scores of the beat. `row` names the row; `last` ends it."""

    payload: Any
    row: int
    last: bool
    second_pass: bool = False


@dataclass
class RowOutcome:
    """A row with its decision: the output payloads of its beats, or dropped for a second pass."""

    row: int
    outputs: list[Any]
    dropped: bool


RowFunction = Callable[[Sequence[ScoreBeat]], RowOutcome]


def golden_row(config: AcceleratorConfig, threshold: int) -> RowFunction:
    """Outcome of a row of score beats by the golden models; output payloads are `(probabilities, last)`."""

    def outcome(beats: Sequence[ScoreBeat]) -> RowOutcome:
        score = np.array([s for beat in beats for s in beat.payload], np.int64)
        probability, largest = softmax(score, config.formats, config.capacity)
        outputs, start = [], 0
        for beat in beats:
            part = probability[start : start + len(beat.payload)]
            outputs.append((tuple(int(p) for p in part), beat.last))
            start += len(beat.payload)
        return RowOutcome(beats[0].row, outputs, bool(needs_lsb(largest, threshold)) and not beats[0].second_pass)

    return outcome


class SoftmaxUnit(SteppedUnit):
    """Beats in: `ScoreBeat`; beats out: the payloads of the row function, of rows that are not dropped.

    Three engines share two row buffers of whole beats: *fill* writes scores and keeps the running maximum,
    *exponentials* reads them back and writes exponentials and their sum, *normalise* reads those and feeds the output
    FIFO. `decisions` collects `(row, dropped)` at the edge after which everybody can see them.
    """

    def __init__(self, cycles: AttentionLatencies, row_function: RowFunction) -> None:
        self.row_function = row_function
        self.score_credits = cycles.score_beats
        self.exponential_credits = cycles.exponential_beats
        self.score_row_credits = cycles.row_slots
        self.exponential_row_credits = cycles.row_slots
        self.filling: list[ScoreBeat] = []
        self.fill_delay = Delay(cycles.softmax_fill)
        self.filled: deque[list[ScoreBeat]] = deque()
        self.reading: list[ScoreBeat] = []
        self.read_beats = 0
        self.decision_delay = Delay(cycles.exponential + cycles.reciprocal)
        self.decided: deque[RowOutcome] = deque()
        self.normalised_beats = 0
        self.normalise_delay = Delay(cycles.normalise)
        self.normalise_credits = cycles.normalise_depth
        self.fifo: deque[Any] = deque()
        self.decisions: list[tuple[int, bool]] = []

    @classmethod
    def of(cls, config: AcceleratorConfig, threshold: int) -> SoftmaxUnit:
        """The unit of `config` with the golden models inside."""
        return cls(attention_latencies(config), golden_row(config, threshold))

    def offer(self) -> Any | None:
        return self.fifo[0] if self.fifo else None

    def accepts(self) -> bool:
        return self.score_credits > 0 and (bool(self.filling) or self.score_row_credits > 0)

    def tick(self, taken: Any | None, sent: bool) -> None:
        # All three engines decide on the state before the edge.
        row_read, score_freed, score_row_freed = self._read(self.exponential_credits, self.exponential_row_credits)
        entered, exponential_freed, exponential_row_freed = self._normalise(self.normalise_credits)
        filled = self._fill(taken)

        self.score_credits += score_freed
        self.score_row_credits += score_row_freed
        self.exponential_credits += exponential_freed
        self.exponential_row_credits += exponential_row_freed
        if sent:
            self.fifo.popleft()
            self.normalise_credits += 1
        row_filled = self.fill_delay.tick(filled)
        if row_filled is not None:
            self.filled.append(row_filled)
        decided = self.decision_delay.tick(row_read)
        if decided is not None:
            outcome = self.row_function(decided)
            self.decided.append(outcome)
            self.decisions.append((outcome.row, outcome.dropped))
        finished = self.normalise_delay.tick(entered)
        if finished is not None:
            self.fifo.append(finished)

    def _fill(self, taken: ScoreBeat | None) -> list[ScoreBeat] | None:
        if taken is None:
            return None
        self.score_credits -= 1
        if not self.filling:
            self.score_row_credits -= 1
        self.filling.append(taken)
        if not taken.last:
            return None
        row, self.filling = self.filling, []
        return row

    def _read(self, credits: int, row_credits: int) -> tuple[list[ScoreBeat] | None, int, int]:
        """One beat of the oldest filled row into the exponential pipeline; a finished row, beats and rows freed."""
        if credits == 0:
            return None, 0, 0
        if not self.reading:
            if not self.filled or row_credits == 0:
                return None, 0, 0
            self.reading = self.filled.popleft()
            self.read_beats = 0
            self.exponential_row_credits -= 1
        self.exponential_credits -= 1
        self.read_beats += 1
        if self.read_beats < len(self.reading):
            return None, 1, 0
        row, self.reading = self.reading, []
        return row, 1, 1

    def _normalise(self, credits: int) -> tuple[Any | None, int, int]:
        """One beat of the oldest decided row into the output pipeline, or a dropped row away; beats and rows freed."""
        if not self.decided:
            return None, 0, 0
        row = self.decided[0]
        if row.dropped:
            self.decided.popleft()
            return None, len(row.outputs), 1
        if credits == 0:
            return None, 0, 0
        beat = row.outputs[self.normalised_beats]
        self.normalise_credits -= 1
        self.normalised_beats += 1
        if self.normalised_beats < len(row.outputs):
            return beat, 1, 0
        self.decided.popleft()
        self.normalised_beats = 0
        return beat, 1, 1
