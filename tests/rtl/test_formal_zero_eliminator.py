# amaranth: UnusedElaboratable=no
"""The zero eliminator equals its specification by ranks: lane i goes where as many valid lanes are below it."""

from __future__ import annotations

from functools import reduce
from operator import or_

import pytest
from amaranth import Cat, Module, Mux, Signal, unsigned
from amaranth.asserts import AnySeq
from amaranth.hdl import Assert, Elaboratable

from rtl.harness import tool_or_skip
from topsieve_rtl.formal import Mode, OrderCheck, ProofError, assert_stream, assume_stream, combinational_paths, prove
from topsieve_rtl.stream import Beat
from topsieve_rtl.tools import executable
from topsieve_rtl.topk.zero_eliminator import Compactor, MaskedBeat, ZeroEliminator


@pytest.fixture(autouse=True)
def _solver():
    for tool in ("yowasp-sby", "yices-smt2"):
        tool_or_skip(lambda tool=tool: executable(tool))


def packs(element: int, lanes: int, masked, packed):
    """Whether the bits `packed` are the valid lanes of the bits `masked`, in order, and nothing else."""
    source, sink = MaskedBeat(unsigned(element), lanes)(masked), Beat(unsigned(element), lanes)(packed)
    ranks = [sum((source.valid[below] for below in range(lane)), start=0) for lane in range(lanes)]
    count = sum(source.valid[lane] for lane in range(lanes))
    holds = (sink.count == count) & (sink.last == source.last)
    for place in range(lanes):
        wanted = reduce(
            or_,
            (Mux(source.valid[lane] & (ranks[lane] == place), source.lanes[lane], 0) for lane in range(place, lanes)),
        )
        holds &= (sink.lanes[place] == wanted) | (count <= place)
    return holds


class CompactorProof(Elaboratable):
    """Any beat in every cycle; what comes out is the packed beat of `stages` cycles before, `late` cycles later."""

    def __init__(self, element: int, lanes: int, late: int = 0) -> None:
        self.element, self.lanes, self.late = element, lanes, late

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = Compactor(unsigned(self.element), self.lanes)
        given = AnySeq(len(Cat(unit.i)))
        m.d.comb += [Cat(unit.i).eq(given), unit.start.eq(1)]
        past, known = given, 1
        for stage in range(unit.stages + self.late):
            register, seen = Signal(len(given), name=f"past_{stage}"), Signal(name=f"known_{stage}")
            m.d.sync += [register.eq(past), seen.eq(known)]
            past, known = register, seen
        with m.If(known):
            m.d.comb += Assert(packs(self.element, self.lanes, past, Cat(unit.o)))
        return m


class EliminatorProof(Elaboratable):
    """The stream unit under stalls."""

    def __init__(self, element: int, lanes: int) -> None:
        self.element, self.lanes = element, lanes

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = ZeroEliminator(unsigned(self.element), self.lanes)
        assume_stream(m, unit.i, "input")
        m.d.comb += unit.o.ready.eq(AnySeq(1))
        assert_stream(m, unit.o, "output")
        OrderCheck(
            m,
            unit.i,
            unit.o,
            unit.pipeline.depth,
            lambda picked, left: packs(self.element, self.lanes, picked, left),
        )
        return m


@pytest.mark.parametrize(
    ("element", "lanes"),
    [
        (1, 1),
        (3, 2),
        (2, 3),
        (3, 4),
        (2, 8),
        pytest.param(4, 8, marks=pytest.mark.full),
        pytest.param(2, 16, marks=pytest.mark.full),
    ],
)
def test_every_beat_is_packed_for_ever(element, lanes):
    depth = Compactor(unsigned(element), lanes).stages + 2
    prove(CompactorProof(element, lanes), depth)


def test_a_cycle_too_many_is_refuted():
    with pytest.raises(ProofError):
        prove(CompactorProof(2, 4, late=1), depth=8, mode=Mode.BOUNDED)


@pytest.mark.parametrize(("element", "lanes", "cycles"), [(2, 2, 10), pytest.param(2, 4, 14, marks=pytest.mark.full)])
def test_beats_keep_their_order_under_stalls(element, lanes, cycles):
    prove(EliminatorProof(element, lanes), depth=cycles, mode=Mode.BOUNDED)


@pytest.mark.parametrize("lanes", [1, 4, 5])
def test_no_port_reaches_another(lanes):
    assert combinational_paths(ZeroEliminator(unsigned(3), lanes)) == []
