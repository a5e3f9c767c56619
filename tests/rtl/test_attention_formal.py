# amaranth: UnusedElaboratable=no
"""Bounded proofs of the attention units on the smallest machine: handshakes, queues that never overflow, order."""

from __future__ import annotations

import pytest
from amaranth import Cat, Module, Mux, Signal
from amaranth.asserts import AnyConst, AnySeq
from amaranth.hdl import Assert, Assume, Elaboratable

from rtl.harness import tool_or_skip
from topsieve_rtl.attention import (
    DotProductOnOperands,
    HeadImportance,
    Softmax,
    TokenImportance,
    WeightedSumArray,
    WeightedSumOnOperands,
)
from topsieve_rtl.formal import Mode, OrderCheck, ProofError, assert_stream, assume_stream, never_starves, prove
from topsieve_rtl.tools import executable
from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.golden.attention_latency import attention_latencies

SMALLEST = AcceleratorConfig.model_validate(
    load_config("tiny").model_dump()
    | {
        "capacity": 2,
        "max_head_dim": 2,
        "double_buffer": False,
        "formats": {
            "query_bits": 2,
            "key_msb_bits": 2,
            "key_lsb_bits": 0,
            "value_bits": 2,
            "score_bits": 6,
            "score_fraction_bits": 1,
            "exponential_bits": 6,
            "exponential_table_bits": 1,
            "reciprocal_bits": 6,
            "reciprocal_table_bits": 1,
            "probability_bits": 4,
            "output_bits": 4,
            "token_importance_bits": 8,
            "head_importance_bits": 8,
        },
        "dot_product": {"multipliers": 1, "lane_split": 1},
        "weighted_sum": {"multipliers": 1, "lane_split": 1},
        "softmax": {"lanes": 1},
        "topk": {"parallelism": 1},
        "importance": {"heads": 2},
    }
)


@pytest.fixture(autouse=True)
def _solver():
    for tool in ("yowasp-sby", "yices-smt2"):
        tool_or_skip(lambda tool=tool: executable(tool))


class UnitProof(Elaboratable):
    """A unit between a free source and a free sink; `rules` adds what is special."""

    def __init__(self, unit, rules=None) -> None:
        self.unit, self.rules = unit, rules

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        assume_stream(m, unit.i, "input")
        m.d.comb += unit.o.ready.eq(AnySeq(1))
        assert_stream(m, unit.o, "output")
        m.d.comb += Assert(~unit.overflow)
        if self.rules:
            self.rules(m, unit)
        return m


def tags_kept(unit, *names):
    """Whether a beat leaves with the fields it came with."""
    source, sink = unit.i.payload.shape(), unit.o.payload.shape()
    return lambda picked, left: Cat(source(picked).beat[name] == sink(left)[name] for name in names).all()


def dot_product_rules(m, unit):
    """One or two words a beat; beats keep their order and their tags, and none waits longer than the latency."""
    words = AnyConst(2)
    m.d.comb += [
        unit.words.eq(words),
        Assume((unit.i.payload.multiplier == 1) & (unit.i.payload.shift == 0)),
        Assume((words == 1) | (words == 2)),
    ]
    latencies = attention_latencies(SMALLEST)
    matches = tags_kept(unit, "count", "last", "row", "second_pass")
    order = OrderCheck(m, unit.i, unit.o, latencies.dot_product_depth, matches)
    never_starves(m, order.inside != 0, unit.o.valid, latencies.dot_product + 1, "output")


def weighted_sum_rules(m, unit):
    words = AnyConst(2)
    m.d.comb += [unit.words.eq(words), Assume((words == 1) | (words == 2))]


def softmax_rules(m, unit):
    """Any decisions; rows of at most two beats, which is the capacity, and every beat with a score."""
    beat = unit.i.payload
    second = Signal()
    with m.If(unit.i.valid & unit.i.ready):
        m.d.sync += second.eq(~beat.last)
    m.d.comb += [
        unit.threshold.eq(AnyConst(len(unit.threshold))),
        Assume(~unit.i.valid | ((beat.count == 1) & (beat.last | ~second))),
    ]


def importance_rules(m, unit):
    """Any one readout shows, for any one word, the saturated sum of the additions that were taken before it."""
    beat, bits = unit.i.payload, unit.bits
    place = AnyConst(len(beat.word))
    taken, left = unit.i.valid & unit.i.ready, unit.o.valid & unit.o.ready
    total, inside, ahead = Signal(bits), Signal(8), Signal(8)
    tracking, wanted = Signal(), Signal(bits)
    pick = AnySeq(1)
    amount = sum((abs(value) for value in beat.operands), start=0)
    exact = total + amount
    reads = taken & beat.read
    m.d.sync += inside.eq(inside + Mux(reads, beat.word + 1, 0) - left)
    with m.If(taken & ~beat.read & (beat.word == place)):
        m.d.sync += total.eq(Mux(exact >> bits, (1 << bits) - 1, exact))
    with m.If(reads & beat.clear & (beat.word >= place)):
        m.d.sync += total.eq(0)
    with m.If(reads & (beat.word >= place) & pick & ~tracking):
        m.d.sync += [tracking.eq(1), wanted.eq(total), ahead.eq(inside - left + place)]
    with m.Elif(tracking & left):
        m.d.sync += [ahead.eq(ahead - 1), tracking.eq(ahead != 0)]
    with m.If(unit.o.valid):
        m.d.comb += Assert(inside != 0)
        with m.If(tracking & (ahead == 0)):
            m.d.comb += Assert(unit.o.payload.lanes[0] == wanted)


def wide_probabilities(machine):
    """Saturation within two additions."""
    return machine.model_copy(update={"formats": machine.formats.model_copy(update={"probability_bits": 8})})


@pytest.mark.parametrize("cycles", [12, pytest.param(13, marks=pytest.mark.full)])
def test_dot_products_keep_order_and_tags(cycles):
    prove(UnitProof(DotProductOnOperands(SMALLEST, row_bits=1), dot_product_rules), cycles, Mode.BOUNDED)


@pytest.mark.parametrize("cycles", [12, pytest.param(15, marks=pytest.mark.full)])
def test_weighted_sums_never_overflow(cycles):
    prove(UnitProof(WeightedSumOnOperands(SMALLEST, row_bits=1), weighted_sum_rules), cycles, Mode.BOUNDED)


@pytest.mark.full
def test_the_softmax_never_overflows():
    prove(UnitProof(Softmax(SMALLEST, row_bits=1), softmax_rules), 20, Mode.BOUNDED)


@pytest.mark.parametrize("cycles", [9, pytest.param(12, marks=pytest.mark.full)])
def test_token_importance_is_the_sum_of_what_was_taken(cycles):
    prove(UnitProof(TokenImportance(wide_probabilities(SMALLEST)), importance_rules), cycles, Mode.BOUNDED)


@pytest.mark.parametrize("cycles", [10, pytest.param(11, marks=pytest.mark.full)])
def test_head_importance_is_the_sum_of_what_was_taken(cycles):
    prove(UnitProof(HeadImportance(SMALLEST), importance_rules), cycles, Mode.BOUNDED)


class Hasty(TokenImportance):
    """Accumulators that take additions while they read out."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.i.ready.eq(1)
        return m


class AlwaysReady(WeightedSumArray):
    """An array that admits beats without a credit."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.i.ready.eq(1)
        return m


def test_an_addition_that_meets_a_readout_is_refuted():
    with pytest.raises(ProofError, match="bmc failed"):
        prove(UnitProof(Hasty(SMALLEST), importance_rules), 8, Mode.BOUNDED)


def test_an_overflow_is_refuted():
    with pytest.raises(ProofError, match="bmc failed"):
        prove(UnitProof(AlwaysReady(SMALLEST, row_bits=1), weighted_sum_rules), 10, Mode.BOUNDED)
