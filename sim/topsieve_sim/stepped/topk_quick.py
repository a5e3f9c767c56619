"""Quick-select clock by clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from topsieve_sim.golden.topk_latency import packer_stages, popcount_ranks, zero_eliminator_stages
from topsieve_sim.golden.topk_pivot import OFFERS_LIMIT, choose_pivot, lfsr_next, sample_slot
from topsieve_sim.stepped.topk_select import Command, Result, SteppedSelector


@dataclass
class Samples:
    """Three sample registers of one side and how many elements were offered."""

    values: list[int] = field(default_factory=lambda: [0, 0, 0])
    offers: int = 0

    def offer(self, row: list[int], masked: list[bool], state: int, lanes: int) -> None:
        """Offer one masked lane of `row`."""
        candidates = [lane for lane, flag in enumerate(masked) if flag]
        if not candidates:
            return
        slot = sample_slot(state, self.offers)
        if slot >= 0:
            start = state & (lanes - 1)
            self.values[slot] = row[next((lane for lane in candidates if lane >= start), candidates[0])]
        self.offers = min(self.offers + 1, OFFERS_LIMIT)


class Partition:
    """One side: zero eliminator, packer and memory.

    `rows` are the rows of the newest round that has reached the packer and `round` is its number.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.pipe: list[tuple[int, bool, bool, list[int]] | None] = [None] * (
            zero_eliminator_stages(lanes) + packer_stages(lanes)
        )
        self.waiting: list[int] = []
        self.flush = False
        self.round = -1
        self.rows: list[list[int]] = []
        self.previous_rows: list[list[int]] = []

    def tick(self, incoming: tuple[int, bool, bool, list[int]] | None) -> None:
        """`incoming` is (round, first, last, kept elements) of the mask stage."""
        if self.flush:
            self.rows.append(self.waiting)
            self.waiting = []
            self.flush = False
        arrived = self.pipe.pop()
        if arrived is not None:
            number, first, last, kept = arrived
            if first:
                self.round = number
                self.previous_rows = self.rows
                self.rows = []
            self.waiting = self.waiting + kept
            emitted = len(self.waiting) > self.lanes
            if emitted:
                self.rows.append(self.waiting[: self.lanes])
                self.waiting = self.waiting[self.lanes :]
            if last and self.waiting:
                if emitted:
                    self.flush = True
                else:
                    self.rows.append(self.waiting)
                    self.waiting = []
        self.pipe.insert(0, incoming)


@dataclass
class Token:
    """A row on its way from the row read to the decision."""

    round: int
    first: bool
    last: bool
    row: list[int]
    live: list[bool]
    above: list[bool] = field(default_factory=list)
    below: list[bool] = field(default_factory=list)


class QuickSelect(SteppedSelector):
    """SpAtten's selector: two partitions, P comparators, a pivot from the partition."""

    def __init__(self, lanes: int, score_bits: int, seed: int) -> None:
        super().__init__(lanes, score_bits)
        self.seed = seed
        self.load_lfsr = seed
        self.load_samples = Samples()
        self.load_pipe: list[tuple[bool, list[int]] | None] = [None]
        self.pipe: list[Token | None] = [None] * (3 + popcount_ranks(lanes))
        self.partitions = {"above": Partition(lanes), "below": Partition(lanes)}
        self.samples = {"above": Samples(), "below": Samples()}
        self.running = False
        self.fresh = False
        self.source = "buffer"
        self.round = 0
        self.pivot = 0
        self.rounds: list[tuple[int, int]] = []
        """(first issue, size) of each round of all packets, in cycles since the start."""
        self.cycle = 0

    def _begin(self, command: Command) -> None:
        self.size, self.target = command
        self.source = "buffer"
        self.lfsr = self.seed
        # A new number, so that no row of the packet before can be taken for one of this packet.
        self.round += 1
        self._start_round()

    def _start_round(self) -> None:
        self.running = True
        self.fresh = True
        self.row = 0

    def _advance(self, rows: list[list[int]], loading: tuple[bool, list[int]] | None) -> None:
        counted = self.pipe.pop()
        if counted is not None:
            self._count(counted)
        # The freshly started round chooses its pivot in the cycle after the decision.
        issued = self._issue(rows) if self.running and not (counted is not None and counted.last) else None
        compared = self.pipe[1]
        if compared is not None:
            live = list(zip(compared.row, compared.live, strict=True))
            compared.above = [keep and value > self.pivot for value, keep in live]
            compared.below = [keep and value < self.pivot for value, keep in live]
        masked = self.pipe[2]
        for side, partition in self.partitions.items():
            if masked is None:
                partition.tick(None)
            else:
                mask = masked.above if side == "above" else masked.below
                kept = [value for value, keep in zip(masked.row, mask, strict=True) if keep]
                partition.tick((masked.round, masked.first, masked.last, kept))
        self.pipe.insert(0, issued)
        self._sample_load(loading)
        self.cycle += 1

    def _sample_load(self, loading: tuple[bool, list[int]] | None) -> None:
        arrived = self.load_pipe.pop()
        if arrived is not None:
            first, row = arrived
            if first:
                self.load_samples = Samples()
                self.load_lfsr = self.seed
            self.load_samples.offer(row, [True] * len(row), self.load_lfsr, self.lanes)
            self.load_lfsr = lfsr_next(self.load_lfsr)
        self.load_pipe.insert(0, loading)

    def _count(self, token: Token) -> None:
        if token.first:
            self.greater = self.less = 0
            self.samples = {"above": Samples(), "below": Samples()}
        self.greater += sum(token.above)
        self.less += sum(token.below)
        self.samples["above"].offer(token.row, token.above, self.lfsr, self.lanes)
        self.samples["below"].offer(token.row, token.below, self.lfsr, self.lanes)
        self.lfsr = lfsr_next(self.lfsr)
        if not token.last:
            return
        equal = self.size - self.greater - self.less
        if self.greater >= self.target:
            side, size = "above", self.greater
        elif self.greater + equal < self.target:
            side, size = "below", self.less
            self.target -= self.greater + equal
        else:
            self.result = Result(self.pivot, self.target - self.greater)
            return
        single = self.size <= self.lanes
        self.source = "hold" if single else side
        if single:
            self.held = Token(0, True, True, token.row, token.above if side == "above" else token.below)
        self.size = size
        self.chosen_samples = self.samples[side]
        self.round += 1
        self._start_round()

    def _issue(self, rows: list[list[int]]) -> Token | None:
        if self.fresh:
            self.fresh = False
            samples = self.load_samples if self.source == "buffer" else self.chosen_samples
            first, second, third = samples.values
            self.pivot = choose_pivot(first, second, third, samples.offers, self.target, self.size)
        first_row = self.row == 0
        last = (self.row + 1) * self.lanes >= self.size
        if self.source == "hold":
            token = Token(self.round, True, True, self.held.row, self.held.live)
            last = True
        else:
            if self.source == "buffer":
                available = rows
            else:
                partition = self.partitions[self.source]
                # Once this round's own first row has reached the packer, the partition read here is the one before.
                if partition.round == self.round - 1:
                    available = partition.rows
                elif partition.round == self.round:
                    available = partition.previous_rows
                else:
                    available = []
            if self.row >= len(available):
                return None
            row = list(available[self.row][: self.size - self.row * self.lanes])
            token = Token(self.round, first_row, last, row, [True] * len(row))
        if first_row:
            self.rounds.append((self.cycle, self.size))
        self.row += 1
        self.running = not last
        return token
