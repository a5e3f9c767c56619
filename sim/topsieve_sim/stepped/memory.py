"""The ideal memory clock by clock: one request at a time, one word a cycle, fixed latency."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass
class Buffer:
    """One bank of keys or values: how many of its beats can be read."""

    beats_ready: int = 0


@dataclass(frozen=True)
class Request:
    """`rows` rows of `row_bits` into `target`."""

    target: Buffer
    rows: int
    row_bits: int


class IdealMemory:
    """Serves the active request; a word served in cycle x is readable from cycle x + latency + 1 on."""

    def __init__(self, lanes: int, bytes_per_cycle: int, latency: int) -> None:
        self.lanes = lanes
        self.bytes_per_cycle = bytes_per_cycle
        self.flying: deque[list[Buffer]] = deque([[] for _ in range(latency)])
        self.target = Buffer()
        self.served = 0
        # Words of the active request up to the end of each beat that is not complete yet.
        self.beat_words: deque[int] = deque()
        self.bytes_asked = 0

    @property
    def accepts(self) -> bool:
        """Whether a request can be picked in this cycle."""
        return not self.beat_words

    @property
    def drained(self) -> bool:
        """Whether everything that was asked for has been served."""
        return not self.beat_words

    def tick(self, ready: bool, picked: Request | None) -> None:
        """The clock edge: one word was served if the memory was `ready`; `picked` becomes active."""
        arrived: list[Buffer] = []
        if self.beat_words and ready:
            self.served += 1
            while self.beat_words and self.beat_words[0] <= self.served:
                self.beat_words.popleft()
                arrived.append(self.target)
        self.flying.append(arrived)
        for buffer in self.flying.popleft():
            buffer.beats_ready += 1
        if picked is not None:
            self.target = picked.target
            self.served = 0
            for start in range(0, picked.rows, self.lanes):
                size = -(-min(start + self.lanes, picked.rows) * picked.row_bits // 8)
                self.beat_words.append(-(-size // self.bytes_per_cycle))
            self.bytes_asked += -(-picked.rows * picked.row_bits // 8)
