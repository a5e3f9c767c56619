# amaranth: UnusedElaboratable=no
"""The expander proven for ever; the survivor banks on a small machine: handshakes, no overflow, nothing left behind."""

from __future__ import annotations

import pytest
from amaranth import Cat, Module, Mux, Signal
from amaranth.asserts import AnyConst, AnySeq
from amaranth.hdl import Assert, Assume, Cover, Elaboratable

from rtl.harness import tool_or_skip
from topsieve_rtl.attention.expander import expand
from topsieve_rtl.attention.survivors import SurvivorBanks
from topsieve_rtl.formal import Mode, ProofError, assert_stream, never_starves, prove
from topsieve_rtl.tools import executable
from topsieve_sim.arch import load_config


@pytest.fixture(autouse=True)
def _solver():
    for tool in ("yowasp-sby", "yices-smt2"):
        tool_or_skip(lambda tool=tool: executable(tool))


class ExpanderProof(Elaboratable):
    """Any number of elements from any column on, cyclically, with any ascending lanes: each arrives at its lane."""

    def __init__(self, columns: int, ascending: bool = True) -> None:
        self.columns, self.ascending = columns, ascending

    def elaborate(self, platform):
        m = Module()
        columns, bits = self.columns, (self.columns - 1).bit_length()
        first, count, chosen = AnyConst(bits), AnyConst(bits + 1), AnyConst(bits)
        m.d.comb += [Assume(count <= columns), Assume(chosen < count)]
        # Elements in their order; element n stands in column (first + n) mod columns.
        values = [AnyConst(3) for _ in range(columns)]
        lanes = [AnyConst(bits) for _ in range(columns)]
        if self.ascending:
            for n in range(columns - 1):
                m.d.comb += Assume((n + 1 >= count) | (lanes[n] < lanes[n + 1]))
        entries = []
        for column in range(columns):
            value, lane = Signal(3, name=f"value_{column}"), Signal(bits, name=f"lane_{column}")
            for n in range(columns):
                here = ((first + n)[:bits] == column) & (count > n)
                with m.If(here):
                    m.d.comb += [value.eq(values[n]), lane.eq(lanes[n])]
            entries.append((value, lane))
        out = expand(m, [value for value, _ in entries], [lane for _, lane in entries])
        for place, arrived in enumerate(out):
            wanted = Signal(3, name=f"wanted_{place}")
            for n in range(columns):
                with m.If((count > n) & (lanes[n] == place)):
                    m.d.comb += wanted.eq(values[n])
            m.d.comb += Assert(arrived == wanted)
        return m


@pytest.mark.parametrize("columns", [2, 4, 8])
def test_every_element_arrives_at_its_lane(columns):
    prove(ExpanderProof(columns), depth=1)


def test_lanes_that_do_not_ascend_are_refuted():
    with pytest.raises(ProofError):
        prove(ExpanderProof(4, ascending=False), depth=1)


SMALL = load_config(
    "tiny",
    [
        "capacity=4",
        "double_buffer=false",
        "formats.probability_bits=4",
        "softmax.lanes=2",
        "topk.parallelism=2",
        "dot_product.multipliers=8",
        "weighted_sum.multipliers=8",
    ],
)


class BanksProof(Elaboratable):
    """Rows of one to four survivors, as an engine would give them while banks are reserved; sinks with any stalls.

    With `patience`, the sinks never stall and a complete row keeps leaving.
    """

    def __init__(self, gather: int, patience: int = 0, spare: int = 0) -> None:
        self.gather, self.patience, self.spare = gather, patience, spare

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = SurvivorBanks(SMALL, row_bits=1)
        lanes, capacity = SMALL.topk.parallelism, SMALL.capacity
        beat, taken = unit.i.payload, unit.i.valid
        # Rows inside: at most the banks, from their first beat to `freed`.
        inside, is_open, before = Signal(4), Signal(), Signal(range(capacity + 1))
        index = Signal(range(capacity))
        opens, closes = taken & ~is_open, taken & beat.last
        m.d.comb += [
            unit.gather.eq(self.gather),
            unit.i.valid.eq(AnySeq(1)),
            beat.as_value().eq(AnySeq(len(beat.as_value()))),
            Assume(~opens | (inside < unit.banks + self.spare)),
            Assume(beat.last | (beat.count == lanes)),
            Assume((beat.count != 0) & (before + beat.count <= capacity)),
            Assume(beat.status == 0),
            # Positions ascend, lanes beyond the count are 0.
            *(Assume((beat.count > lane) | (beat.lanes[lane].as_value() == 0)) for lane in range(lanes)),
            Assume((beat.count < 2) | (beat.lanes[0].index < beat.lanes[1].index)),
            Assume(~is_open | (beat.lanes[0].index > index)),
        ]
        m.d.sync += inside.eq(inside + opens - unit.freed)
        with m.If(taken):
            m.d.sync += [
                is_open.eq(~beat.last),
                before.eq(Mux(beat.last, 0, before + beat.count)),
                index.eq(Mux(beat.count == 1, beat.lanes[0].index, beat.lanes[1].index)),
            ]
        # All rows are whole: four elements, two beats.
        row = unit.row
        m.d.comb += [
            row.valid.eq(1),
            row.payload.row.eq(0),
            row.payload.last_beat.eq(1),
            row.payload.count.eq(2),
            unit.o.ready.eq(AnySeq(1)),
            unit.positions.ready.eq(AnySeq(1)),
            Assert(~unit.overflow),
        ]
        assert_stream(m, unit.o, "output")
        assert_stream(m, unit.positions, "positions")

        # As many positions leave as survivors came, as many rows as there were; nothing before its row is complete.
        left, read = unit.o.valid & unit.o.ready, unit.positions.valid & unit.positions.ready
        unread, rows = Signal(5), Signal(3)
        m.d.sync += [
            unread.eq(unread + Mux(taken, beat.count, 0) - read),
            rows.eq(rows + closes - (left & unit.o.payload.last)),
        ]
        with m.If((inside == 0) & ~is_open):
            m.d.comb += [Assert(rows == 0), Assert((unread == 0) | (self.gather == 0))]
        with m.If(unit.o.valid):
            m.d.comb += Assert(rows != 0)
        if not self.gather:
            m.d.comb += Assert(~unit.positions.valid)
        freed = Signal(2)
        m.d.sync += freed.eq(freed | unit.freed)
        m.d.comb += Cover(Cat(freed[0], inside == 0, taken).all())
        if self.patience:
            m.d.comb += [Assume(unit.o.ready), Assume(unit.positions.ready)]
            never_starves(m, rows != 0, left | read, self.patience, "progress")
        return m


@pytest.mark.parametrize("gather", [0, 1])
def test_banks_keep_their_promises(gather):
    prove(BanksProof(gather), 8, Mode.BOUNDED)


@pytest.mark.parametrize("gather", [0, 1])
def test_banks_never_stand_still(gather):
    prove(BanksProof(gather, patience=2), 8, Mode.BOUNDED)


def test_a_row_without_a_bank_is_refuted():
    with pytest.raises(ProofError, match="bmc failed"):
        prove(BanksProof(1, spare=4), 10, Mode.BOUNDED)
