# amaranth: UnusedElaboratable=no
"""A small top-k engine keeps exactly what the definition keeps, for every packet, arrival and stall up to a bound."""

from __future__ import annotations

import pytest
from amaranth import Array, Cat, Module, Mux, ResetSignal, Signal
from amaranth.asserts import AnySeq
from amaranth.hdl import Assert, Assume, Cover, Elaboratable

from rtl.harness import tool_or_skip
from topsieve_rtl.formal import Mode, ProofError, assert_stream, assume_stream, prove
from topsieve_rtl.tools import executable
from topsieve_rtl.topk import TopKEngine, make_selector
from topsieve_sim.arch import SelectorKind
from topsieve_sim.golden.topk import PacketStatus

LANES, BITS, CAPACITY = 2, 2, 4


@pytest.fixture(autouse=True)
def _solver():
    for tool in ("yowasp-sby", "yices-smt2"):
        tool_or_skip(lambda tool=tool: executable(tool))


class TopKProof(Elaboratable):
    """Records the first packet and asserts that what leaves for it is the k largest, lowest index first among equals.

    `tie_to_highest` states the wrong tie rule, to show that the proof can fail.
    """

    def __init__(self, kind: SelectorKind, *, stalls: bool, tie_to_highest: bool = False) -> None:
        self.kind = kind
        self.stalls = stalls
        self.tie_to_highest = tie_to_highest

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine = engine = TopKEngine(
            make_selector(self.kind, LANES, BITS, CAPACITY, radix_bits=1), banks=1
        )
        i, o = engine.i, engine.o
        assume_stream(m, i, "input")
        m.d.comb += o.ready.eq(AnySeq(1) if self.stalls else 1)
        assert_stream(m, o, "output")

        # The packet as it came in: a well-formed one, from the state after reset.
        m.d.comb += Assume(~ResetSignal())
        scores = [Signal(BITS, name=f"score_{n}") for n in range(CAPACITY)]
        n, k, closed = Signal(range(CAPACITY + 1)), Signal(range(CAPACITY + 2)), Signal()
        m.d.comb += Assume(i.payload.count <= LANES)
        m.d.comb += Assume((i.payload.count == LANES) | i.payload.last)
        m.d.comb += Assume(n + i.payload.count <= CAPACITY)
        m.d.comb += Assume(i.payload.k <= CAPACITY)
        with m.If(i.valid & i.ready & ~closed):
            for place in range(CAPACITY):
                lane = place % LANES
                with m.If((n == place - lane) & (i.payload.count > lane)):
                    m.d.sync += scores[place].eq(i.payload.lanes[lane])
            m.d.sync += [n.eq(n + i.payload.count), k.eq(i.payload.k), closed.eq(i.payload.last)]

        # The definition, by ranks.
        def before(a, b):
            earlier = a > b if self.tie_to_highest else a < b
            return (scores[a] > scores[b]) | ((scores[a] == scores[b]) & earlier)

        ranks = [sum(((n > a) & before(a, b) for a in range(CAPACITY) if a != b), start=0) for b in range(CAPACITY)]
        kept = Cat((n > b) & (ranks[b] < k) for b in range(CAPACITY))

        # What leaves for it: kept elements, ascending, with their scores, all of them by the last beat.
        seen, following, done = Signal(range(CAPACITY + 1)), Signal(range(CAPACITY + 1)), Signal()
        with m.If(o.valid & ~done):
            m.d.comb += Assert(closed)
            m.d.comb += Assert(o.payload.status == PacketStatus.OK.value)
            m.d.comb += Assert(o.payload.count <= LANES)
            for lane in range(LANES):
                index, valid = o.payload.lanes[lane].index, o.payload.count > lane
                low = following if lane == 0 else o.payload.lanes[lane - 1].index + 1
                with m.If(valid):
                    m.d.comb += Assert((index >= low) & kept.bit_select(index, 1))
                    m.d.comb += Assert(o.payload.lanes[lane].score == Array(scores)[index])
            with m.If(o.payload.last):
                m.d.comb += Assert(seen + o.payload.count == sum(kept[b] for b in range(CAPACITY)))
            with m.If(o.ready):
                last_index = Mux(o.payload.count == LANES, o.payload.lanes[LANES - 1].index, o.payload.lanes[0].index)
                m.d.sync += [
                    seen.eq(seen + o.payload.count),
                    following.eq(Mux(o.payload.count == 0, following, last_index + 1)),
                    done.eq(o.payload.last),
                ]
        m.d.comb += Cover(done & (n == CAPACITY) & (seen == 2))
        return m


# In these bounds whole packets with ties pass; `test_a_wrong_tie_rule_is_refuted` shows it.
def test_a_radix_engine_keeps_what_the_definition_keeps():
    prove(TopKProof(SelectorKind.RADIX, stalls=False), depth=23, mode=Mode.BOUNDED)


@pytest.mark.full
@pytest.mark.parametrize("kind", SelectorKind)
def test_every_engine_keeps_what_the_definition_keeps_under_stalls(kind):
    prove(TopKProof(kind, stalls=True), depth=24, mode=Mode.BOUNDED)


@pytest.mark.parametrize(
    ("kind", "cycles"),
    [
        (SelectorKind.RADIX, 23),
        pytest.param(SelectorKind.QUICK, 20, marks=pytest.mark.full),
        pytest.param(SelectorKind.BITONIC, 24, marks=pytest.mark.full),
    ],
)
def test_a_wrong_tie_rule_is_refuted(kind, cycles):
    with pytest.raises(ProofError):
        prove(TopKProof(kind, stalls=False, tie_to_highest=True), depth=cycles, mode=Mode.BOUNDED)


@pytest.mark.full
def test_the_assumptions_let_a_full_packet_through():
    prove(TopKProof(SelectorKind.RADIX, stalls=False), depth=32, mode=Mode.COVER)
