"""Quick-select (SpAtten, section IV-B): partitions of rows around a pivot until the k-th largest is the pivot."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, enum

from topsieve_rtl.topk.networks import one_hot_select, population_count, registered
from topsieve_rtl.topk.partition import Partition
from topsieve_rtl.topk.pivot import PivotChooser
from topsieve_rtl.topk.sampler import Sampler, lfsr_after_row
from topsieve_rtl.topk.selector import Selector
from topsieve_sim.golden.topk_latency import popcount_ranks
from topsieve_sim.golden.topk_pivot import LFSR_BITS


class Source(enum.Enum, shape=2):
    """Where a round's rows come from."""

    BUFFER = 0
    ABOVE = 1
    BELOW = 2
    HELD = 3


class QuickSelect(Selector):
    """Rounds over the row buffer, then over the partition above or below the pivot that holds the k-th largest.

    A row passes the memory, the row register, the comparators (masks) and the population counts; the decision is taken
    on the counts, before the partition's tail has passed its zero eliminator. A partition of one row stays in the row
    register and only its mask shrinks.

    Parameters
    ----------
    lanes, score_bits, capacity : see `Selector`.
    seed : state of the pivot LFSR at the start of every packet, 1 to 0xFFFF.

    Raises
    ------
    ValueError
        a parameter out of range.
    """

    def __init__(self, lanes: int, score_bits: int, capacity: int, seed: int = 0xACE1) -> None:
        if not 1 <= seed <= 0xFFFF:
            raise ValueError(f"seed must be from 1 to {0xFFFF}, got {seed}")
        self.seed = seed
        self.round_starts = Signal()
        self.round_size = Signal(range(capacity + 1))
        super().__init__(lanes, score_bits, capacity)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lanes, bits = self.lanes, self.score_bits
        numbers = range(self.capacity + 1)
        above = m.submodules.above = Partition(bits, lanes, self.rows)
        below = m.submodules.below = Partition(bits, lanes, self.rows)
        load_sampler = m.submodules.load_sampler = Sampler(bits, lanes)
        above_sampler = m.submodules.above_sampler = Sampler(bits, lanes)
        below_sampler = m.submodules.below_sampler = Sampler(bits, lanes)
        chooser = m.submodules.chooser = PivotChooser(bits, self.capacity)

        # State of the selection. `above_target` is the wanted rank minus one.
        idle = Signal(init=1)
        running, fresh, parity = Signal(), Signal(), Signal()
        source, source_is_above = Signal(Source), Signal()
        size, above_target = Signal(numbers), Signal(numbers)
        index, remaining, pointer = Signal(range(self.rows + 1)), Signal(numbers), Signal(range(above.depth))

        self._sample_load(m, load_sampler)

        # Row read.
        first_row = index == 0
        left = Mux(first_row, size, remaining)
        last_row = Signal()
        available = Signal()
        from_above, from_below = source == Source.ABOVE, source == Source.BELOW
        written = []
        for partition in (above, below):
            # Once this round's own rows reach the packer, everything that it reads has been written.
            ours = partition.parity != parity
            written.append(
                Mux(first_row, ours & (partition.rows_written != 0), ~ours | (index < partition.rows_written))
            )
        m.d.comb += available.eq(Mux(from_above, written[0], Mux(from_below, written[1], 1)))
        issue = running & available
        base = Mux(from_above, above.base, below.base)
        place = Mux(first_row, base, pointer)
        m.d.comb += [
            last_row.eq((left <= lanes) | (source == Source.HELD)),
            # Not gated by `issue`: the enable reaches every bit of a row. A row read too early is not used.
            self.read.eq(running & (source == Source.BUFFER)),
            self.address.eq(index),
            above.address.eq(place),
            below.address.eq(place),
            above.read.eq(running & from_above),
            below.read.eq(running & from_below),
            self.round_starts.eq(issue & first_row),
            self.round_size.eq(size),
        ]
        m.d.sync += fresh.eq(0)
        with m.If(issue):
            m.d.sync += [index.eq(index + 1), remaining.eq(left - lanes), pointer.eq(place + 1)]
            with m.If(last_row):
                m.d.sync += running.eq(0)

        # Memory answer, then the row register with its live lanes.
        reading = registered(m, issue, "reading")
        read_first = registered(m, first_row, "read_first")
        read_last = registered(m, last_row, "read_last")
        read_sources = registered(m, Cat(source == Source.BUFFER, from_above, from_below), "read_sources")
        read_held = registered(m, source == Source.HELD, "read_held")
        read_live = registered(m, Cat(~last_row | (left > lane) for lane in range(lanes)), "read_live")
        above_mask, below_mask = Signal(lanes), Signal(lanes)
        row = Signal(data.ArrayLayout(bits, lanes))
        live = Signal(lanes)
        answers = [answer.as_value() for answer in (self.row, above.answer, below.answer)]
        with m.If(reading):
            m.d.sync += live.eq(Mux(read_held, Mux(source_is_above, above_mask, below_mask), read_live))
            with m.If(~read_held):
                m.d.sync += row.eq(one_hot_select(read_sources, answers))
        comparing = registered(m, reading, "comparing")
        compare_first = registered(m, read_first, "compare_first")
        compare_last = registered(m, read_last, "compare_last")

        # Masks; they hold until the next row, for a partition that stays in the row register.
        masked = registered(m, comparing, "masked")
        masked_first = registered(m, compare_first, "masked_first")
        masked_last = registered(m, compare_last, "masked_last")
        masked_row = Signal(data.ArrayLayout(bits, lanes))
        with m.If(comparing):
            m.d.sync += [
                masked_row.eq(row),
                above_mask.eq(live & Cat(row[lane] > chooser.pivot for lane in range(lanes))),
                below_mask.eq(live & Cat(row[lane] < chooser.pivot for lane in range(lanes))),
            ]

        # Partitions and samplers see the masks.
        lfsr = Signal(LFSR_BITS, init=self.seed)
        with m.If(masked):
            m.d.sync += lfsr.eq(lfsr_after_row(lfsr))
        for partition, sampler, mask in (
            (above, above_sampler, above_mask),
            (below, below_sampler, below_mask),
        ):
            m.d.comb += [
                partition.start.eq(masked),
                partition.first.eq(masked_first),
                partition.last.eq(masked_last),
                partition.row.eq(masked_row),
                partition.mask.eq(mask),
                sampler.start.eq(masked),
                sampler.first.eq(masked_first),
                sampler.row.eq(masked_row),
                sampler.mask.eq(mask),
                sampler.state.eq(lfsr),
            ]

        # Counts and the decision.
        ranks = popcount_ranks(lanes)
        greater_in_row = population_count(m, above_mask, "greater")
        less_in_row = population_count(m, below_mask, "less")
        counted, counted_first, counted_last = masked, masked_first, masked_last
        for rank in range(ranks):
            counted = registered(m, counted, f"counted_{rank}")
            counted_first = registered(m, counted_first, f"counted_first_{rank}")
            counted_last = registered(m, counted_last, f"counted_last_{rank}")
        greater, less = Signal(numbers), Signal(numbers)
        greater_sum, less_sum = Signal(numbers), Signal(numbers)
        # (wanted rank - 1) - greater, and (wanted rank - 1) - (greater + equal): their signs decide.
        balance = signed(len(size) + 1)
        rank_above, rank_equal = Signal(balance), Signal(balance)
        rank_above_sum, rank_equal_sum = Signal(balance), Signal(balance)
        below_start = registered(m, above_target - size, "below_start", balance)
        m.d.comb += [
            greater_sum.eq(Mux(counted_first, 0, greater) + greater_in_row),
            less_sum.eq(Mux(counted_first, 0, less) + less_in_row),
            rank_above_sum.eq(Mux(counted_first, above_target, rank_above) - greater_in_row),
            rank_equal_sum.eq(Mux(counted_first, below_start, rank_equal) + less_in_row),
        ]
        kth, quota = Signal(bits), Signal(numbers)
        goes_above, goes_below = rank_above_sum[-1], ~rank_equal_sum[-1]
        with m.If(counted):
            m.d.sync += [
                greater.eq(greater_sum),
                less.eq(less_sum),
                rank_above.eq(rank_above_sum),
                rank_equal.eq(rank_equal_sum),
            ]
            with m.If(counted_last):
                with m.If(goes_above | goes_below):
                    m.d.sync += [
                        size.eq(Mux(goes_above, greater_sum, less_sum)),
                        source_is_above.eq(goes_above),
                        source.eq(Mux(size <= lanes, Source.HELD, Mux(goes_above, Source.ABOVE, Source.BELOW))),
                        running.eq(1),
                        fresh.eq(1),
                        index.eq(0),
                        parity.eq(~parity),
                    ]
                    with m.If(~goes_above):
                        m.d.sync += above_target.eq(rank_equal_sum)
                with m.Else():
                    # The pivot is the k-th largest; one is added to the rank on its way out.
                    m.d.sync += [self.result.valid.eq(1), kth.eq(chooser.pivot), quota.eq(rank_above_sum)]

        # The pivot of a round, chosen in the two cycles after the decision.
        m.d.comb += [
            chooser.start.eq(fresh),
            chooser.above_target.eq(above_target),
            chooser.size.eq(size),
        ]
        with m.If(source == Source.BUFFER):
            m.d.comb += [chooser.samples.eq(load_sampler.samples), chooser.offers.eq(load_sampler.offers)]
        with m.Elif(source_is_above):
            m.d.comb += [chooser.samples.eq(above_sampler.samples), chooser.offers.eq(above_sampler.offers)]
        with m.Else():
            m.d.comb += [chooser.samples.eq(below_sampler.samples), chooser.offers.eq(below_sampler.offers)]

        # Command and result.
        command = self.command.payload
        m.d.comb += [
            self.command.ready.eq(idle),
            self.result.payload.kth.eq(kth),
            self.result.payload.quota.eq(quota + 1),
        ]
        with m.If(self.command.valid & idle):
            m.d.sync += [idle.eq(0), size.eq(command.n), above_target.eq(command.k - 1), source.eq(Source.BUFFER)]
            with m.If((command.k == 0) | (command.k >= command.n)):
                m.d.sync += [
                    self.result.valid.eq(1),
                    kth.eq(Mux(command.k == 0, (1 << bits) - 1, 0)),
                    quota.eq(Mux(command.k == 0, 0, command.n) - 1),
                ]
            with m.Else():
                m.d.sync += [running.eq(1), fresh.eq(1), index.eq(0), parity.eq(~parity), lfsr.eq(self.seed)]
        with m.If(self.result.valid & self.result.ready):
            m.d.sync += [self.result.valid.eq(0), idle.eq(1)]
        return m

    def _sample_load(self, m: Module, sampler: Sampler) -> None:
        """Samples of the whole packet, drawn while it is loaded."""
        lfsr = Signal(LFSR_BITS, init=self.seed, name="load_lfsr")
        state = Signal(LFSR_BITS, name="load_state")
        m.d.comb += [
            state.eq(Mux(self.loading_first, self.seed, lfsr)),
            sampler.start.eq(self.loading),
            sampler.first.eq(self.loading_first),
            sampler.row.eq(self.loaded),
            sampler.mask.eq(self.loaded_valid),
            sampler.state.eq(state),
        ]
        with m.If(self.loading):
            m.d.sync += lfsr.eq(lfsr_after_row(state))
