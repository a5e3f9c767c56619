"""Radix select: a fixed number of histogram passes, the same cycles for all data."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Cat, Const, Module, Mux, Signal, Value

from topsieve_rtl.topk.networks import delayed, one_hot_select, population_count, registered
from topsieve_rtl.topk.selector import Selector
from topsieve_sim.golden.topk_latency import popcount_ranks


class RadixSelect(Selector):
    """One digit per pass, most significant first; the first pass counts while the packet is loaded.

    Instead of a histogram each pass keeps, for every digit value d, how many candidates have a digit of at least d, so
    that the wanted digit is the largest d whose count reaches the wanted rank: all counts are compared at once.

    Parameters
    ----------
    lanes, score_bits, capacity : see `Selector`.
    radix_bits : bits per digit, 1 to 8; the top digit may be narrower.

    Raises
    ------
    ValueError
        a parameter out of range.
    """

    def __init__(self, lanes: int, score_bits: int, capacity: int, radix_bits: int = 4) -> None:
        if not 1 <= radix_bits <= 8:
            raise ValueError(f"radix_bits must be from 1 to 8, got {radix_bits}")
        self.radix_bits = radix_bits
        self.passes = -(-score_bits // radix_bits)
        super().__init__(lanes, score_bits, capacity)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, bits, ranks = self.lanes, self.score_bits, popcount_ranks(self.lanes)
        numbers = range(self.capacity + 1)
        idle = Signal(init=1)
        target, prefix = Signal(numbers), Signal(bits)
        # One bit per pass: the digit that is found next, and the digit of the rows that are issued.
        finding, issuing = Signal(self.passes), Signal(self.passes)
        size, remaining, index = Signal(numbers), Signal(numbers), Signal(range(self.rows + 1))
        running = Signal()
        wait = Signal(range(3 + ranks + 1))

        # Row read: a pass may start before the digit before it is known; its rows meet it in the row register.
        issue = running & (wait == 0)
        first_row = index == 0
        left = Mux(first_row, size, remaining)
        last_row = left <= lanes
        m.d.comb += [self.read.eq(running), self.address.eq(index)]
        with m.If(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.If(issue):
            m.d.sync += [index.eq(Mux(last_row, 0, index + 1)), remaining.eq(left - lanes)]
            with m.If(last_row):
                m.d.sync += [issuing.eq(issuing >> 1), wait.eq(3 + ranks), running.eq(~issuing[0])]
        flags = delayed(m, Cat(issue, first_row, last_row), 2, "flags")
        live = delayed(m, Cat(~last_row | (left > lane) for lane in range(lanes)), 2, "live")
        row = registered(m, self.row.as_value(), "row")

        scores = [row[lane * bits : (lane + 1) * bits] for lane in range(lanes)]
        matching = Cat(self._matches(score, prefix, finding) for score in scores) & live
        digits = [self._digit(score, finding) for score in scores]
        counts = self._counts(m, "pass", digits, matching, flags[0], flags[1])
        top = (self.passes - 1) * self.radix_bits
        loaded = [self.loaded[lane][top:] for lane in range(lanes)]
        load_counts = self._counts(m, "load", loaded, self.loaded_valid, self.loading, self.loading_first)
        complete = delayed(m, flags[0] & flags[2], 2 + ranks, "complete")

        # Rank comparison, then the digit and what is wanted below it.
        command = self.command.payload
        trivial = (command.k == 0) | (command.k >= command.n)
        starts = self.command.valid & idle & ~trivial
        load_complete = delayed(m, starts, 1 + ranks, "load_complete")
        scanning = registered(m, complete | load_complete, "scanning")
        # Every candidate has a digit of at least 0; none has one beyond the last.
        ranked, reached = [], [Const(1)]
        for bound, (count, load_count) in enumerate(zip(counts, load_counts, strict=True), start=1):
            chosen = Mux(finding[-1], load_count, count)
            ranked.append(registered(m, chosen, f"ranked_{bound}"))
            reached.append(registered(m, chosen >= target, f"reached_{bound}"))
        # Counts fall as the bound rises, so the reached ones come first.
        next_not_reached = [~flag for flag in reached[1:]] + [Const(1)]
        edge = Cat(flag & stop for flag, stop in zip(reached, next_not_reached, strict=True))
        above = one_hot_select(edge, [*ranked, Const(0)])
        digit = Signal(self.radix_bits)
        for bit in range(self.radix_bits):
            m.d.comb += digit[bit].eq(Cat(edge[d] for d in range(1 << self.radix_bits) if d >> bit & 1).any())
        with m.If(scanning):
            m.d.sync += [target.eq(target - above), finding.eq(finding >> 1)]
            for step in range(self.passes):
                with m.If(finding[step]):
                    place = slice(step * self.radix_bits, min((step + 1) * self.radix_bits, bits))
                    m.d.sync += prefix[place].eq(digit)
            with m.If(finding[0]):
                m.d.sync += self.result.valid.eq(1)

        # Command and result.
        m.d.comb += [
            self.command.ready.eq(idle),
            self.result.payload.kth.eq(prefix),
            self.result.payload.quota.eq(target),
        ]
        with m.If(self.command.valid & idle):
            m.d.sync += [
                idle.eq(0),
                size.eq(command.n),
                index.eq(0),
                target.eq(command.k),
                finding.eq(1 << (self.passes - 1)),
            ]
            with m.If(trivial):
                m.d.sync += [
                    self.result.valid.eq(1),
                    prefix.eq(Mux(command.k == 0, (1 << bits) - 1, 0)),
                    target.eq(Mux(command.k == 0, 0, command.n)),
                ]
            if self.passes > 1:
                with m.Else():
                    m.d.sync += [running.eq(1), wait.eq(ranks), issuing.eq(1 << (self.passes - 2))]
        with m.If(self.result.valid & self.result.ready):
            m.d.sync += [self.result.valid.eq(0), idle.eq(1)]
        return m

    def _digit(self, score: Value, finding: Signal) -> Value:
        """The digit of `score` that is being found."""
        digits = [score[step * self.radix_bits : (step + 1) * self.radix_bits] for step in range(self.passes)]
        return one_hot_select(finding, digits)

    def _matches(self, score: Value, prefix: Signal, finding: Signal) -> Value:
        """Whether the digits above the one that is being found are those found so far."""
        differs = score ^ prefix
        higher = [
            differs[(step + 1) * self.radix_bits :].any() if step + 1 < self.passes else 0
            for step in range(self.passes)
        ]
        return ~Cat(flag & differing for flag, differing in zip(finding, higher, strict=True)).any()

    def _counts(
        self, m: Module, name: str, digits: Sequence[Value], valid: Value, start: Value, first: Value
    ) -> list[Value]:
        """Counts of digits at or above each value but 0, over the rows of a pass: comparison, population count, sum."""
        ranks = popcount_ranks(self.lanes)
        started = delayed(m, start, 1 + ranks, f"{name}_started")
        opened = delayed(m, first, 1 + ranks, f"{name}_opened")
        counts = []
        for bound in range(1, 1 << self.radix_bits):
            mask = registered(m, valid & Cat(digit >= bound for digit in digits), f"{name}_mask_{bound}")
            found = population_count(m, mask, f"{name}_found_{bound}")
            total = Signal(range(self.capacity + 1), name=f"{name}_total_{bound}")
            with m.If(started):
                m.d.sync += total.eq(Mux(opened, 0, total) + found)
            counts.append(total)
        return counts
