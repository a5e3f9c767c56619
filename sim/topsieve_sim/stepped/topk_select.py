"""What the three selectors share clock by clock, and the radix selector."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from topsieve_sim.golden.topk_latency import popcount_ranks


class Command(NamedTuple):
    """Select the k-th largest of the n scores in the row buffer."""

    n: int
    k: int


class Result(NamedTuple):
    """Keep what is greater than `kth`, and the first `quota` scores equal to it."""

    kth: int
    quota: int


class SteppedSelector(ABC):
    """A selector in front of the row buffer `rows`.

    In each cycle the engine reads `result` and `idle`, then calls `tick` with the command taken in this cycle, the row
    that the loader's row register holds, and whether the result was taken.
    """

    def __init__(self, lanes: int, score_bits: int) -> None:
        self.lanes = lanes
        self.score_bits = score_bits
        self.idle = True
        self.result: Result | None = None

    def tick(
        self, command: Command | None, rows: list[list[int]], loading: tuple[bool, list[int]] | None, taken: bool
    ) -> None:
        """The clock edge. `rows` is the buffer of the packet in work; `loading` is (first row of a packet, scores)."""
        if taken:
            self.result = None
            self.idle = True
        self._advance(rows, loading)
        if command is not None:
            self.idle = False
            n, k = command
            if k == 0:
                self.result = Result((1 << self.score_bits) - 1, 0)
            elif k >= n:
                self.result = Result(0, n)
            else:
                self._begin(command)

    @abstractmethod
    def _advance(self, rows: list[list[int]], loading: tuple[bool, list[int]] | None) -> None:
        """One cycle of the pipelines, from the results back to the row reads."""

    @abstractmethod
    def _begin(self, command: Command) -> None:
        """Registers that a command sets; visible in the next cycle."""


class RadixSelect(SteppedSelector):
    """A digit per pass, most significant first; cumulative counts of digits at or above each value."""

    def __init__(self, lanes: int, score_bits: int, radix_bits: int) -> None:
        super().__init__(lanes, score_bits)
        self.radix_bits = radix_bits
        self.passes = -(-score_bits // radix_bits)
        # Rows of the load on their way to the accumulators: comparison, population count.
        self.load_pipe: list[tuple[bool, list[int]] | None] = [None] * (1 + popcount_ranks(lanes))
        self.load_counts = [0] * (1 << radix_bits)
        # Row reads on their way: memory, row register, comparison, population count.
        self.pipe: list[tuple[int, bool, bool, list[int]] | None] = [None] * (3 + popcount_ranks(lanes))
        self.counts = [0] * (1 << radix_bits)
        self.scan = 0
        self.issue: tuple[int, int] | None = None
        self.issue_wait = 0

    def _cumulative(self, values: list[int], step: int) -> list[int]:
        digits = [value >> step * self.radix_bits & ((1 << self.radix_bits) - 1) for value in values]
        return [sum(digit >= bound for digit in digits) for bound in range(1 << self.radix_bits)]

    def _begin(self, command: Command) -> None:
        self.n, self.target = command
        self.rows_count = -(-self.n // self.lanes)
        self.prefix = 0
        self.step = self.passes - 1
        self.fresh = True
        # Three cycles from the command to the first digit, one more where the population count has two ranks.
        self.scan = 2 + popcount_ranks(self.lanes)
        if self.passes > 1:
            self.issue = (self.passes - 2, 0)
            self.issue_wait = popcount_ranks(self.lanes)

    def _advance(self, rows: list[list[int]], loading: tuple[bool, list[int]] | None) -> None:
        if self.scan:
            self.scan -= 1
            if self.scan == 1:
                self.ranked = list(self.load_counts if self.fresh else self.counts)
            elif self.scan == 0:
                self._digit()
        arrived = self.pipe.pop()
        if arrived is not None:
            step, first, last, values = arrived
            matching = [value for value in values if value >> (step + 1) * self.radix_bits == self.prefix]
            found = self._cumulative(matching, step)
            self.counts = found if first else [a + b for a, b in zip(self.counts, found, strict=True)]
            if last:
                self.scan = 2
        loaded = self.load_pipe.pop()
        if loaded is not None:
            first, values = loaded
            found = self._cumulative(values, self.passes - 1)
            self.load_counts = found if first else [a + b for a, b in zip(self.load_counts, found, strict=True)]
        self.load_pipe.insert(0, loading)
        self.pipe.insert(0, self._issue(rows))

    def _digit(self) -> None:
        digit = max(bound for bound, count in enumerate(self.ranked) if bound == 0 or count >= self.target)
        self.target -= self.ranked[digit + 1] if digit + 1 < len(self.ranked) else 0
        self.prefix = self.prefix << self.radix_bits | digit
        self.fresh = False
        if self.step == 0:
            self.result = Result(self.prefix, self.target)
        self.step -= 1

    def _issue(self, rows: list[list[int]]) -> tuple[int, bool, bool, list[int]] | None:
        if self.issue is None:
            return None
        if self.issue_wait:
            self.issue_wait -= 1
            return None
        step, row = self.issue
        valid = self.n - row * self.lanes
        last = row + 1 == self.rows_count
        token = (step, row == 0, last, list(rows[row][:valid]))
        if not last:
            self.issue = (step, row + 1)
        elif step > 0:
            self.issue = (step - 1, 0)
            # The next pass may not pass the row register before this pass has given its digit.
            self.issue_wait = 2 + popcount_ranks(self.lanes) + 1
        else:
            self.issue = None
        return token
