"""The importance accumulators clock by clock: one beat added a cycle, a readout on command."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from topsieve_sim.golden.attention_latency import ImportanceLatencies
from topsieve_sim.stepped.base import SteppedUnit
from topsieve_sim.stepped.delay import Delay


@dataclass(frozen=True)
class Add:
    """Add `amounts` (one a lane, non-negative) to the accumulators of `word`."""

    word: int
    amounts: tuple[int, ...]


@dataclass(frozen=True)
class Read:
    """Emit words 0 to `words` - 1, one a beat; `clear` leaves zeros behind."""

    words: int
    clear: bool


class ImportanceAccumulators(SteppedUnit):
    """Beats in: `Add` or `Read`; beats out: `(accumulators of a word, last)`.

    The memory is read, added to and written back in a pipeline with forwarding, so additions to one word may follow
    each other in consecutive cycles. A readout waits until the additions before it have landed.
    """

    def __init__(self, latencies: ImportanceLatencies, words: int, lanes: int, bits: int) -> None:
        self.latencies = latencies
        self.memory = [[0] * lanes for _ in range(words)]
        self.maximum = (1 << bits) - 1
        self.draining = 0
        self.reading: Read | None = None
        self.word = 0
        self.credits = latencies.readout_depth
        self.delay = Delay(latencies.readout)
        self.fifo: deque[Any] = deque()

    def offer(self) -> Any | None:
        return self.fifo[0] if self.fifo else None

    def accepts(self) -> bool:
        return self.reading is None

    def tick(self, taken: Add | Read | None, sent: bool) -> None:
        beat = self._read()
        if sent:
            self.fifo.popleft()
            self.credits += 1
        finished = self.delay.tick(beat)
        if finished is not None:
            self.fifo.append(finished)
        if isinstance(taken, Add):
            word = self.memory[taken.word]
            for lane, amount in enumerate(taken.amounts):
                word[lane] = min(word[lane] + amount, self.maximum)
        elif isinstance(taken, Read):
            self.reading = taken
            self.word = 0
            self.draining = self.latencies.add - 1

    def _read(self) -> Any | None:
        if self.reading is None:
            return None
        if self.draining > 0:
            self.draining -= 1
            return None
        if self.credits == 0:
            return None
        self.credits -= 1
        last = self.word == self.reading.words - 1
        beat = tuple(self.memory[self.word]), last
        if self.reading.clear:
            self.memory[self.word] = [0] * len(self.memory[self.word])
        self.word += 1
        if last:
            self.reading = None
        return beat
