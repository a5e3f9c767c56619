# amaranth: UnusedElaboratable=no
"""The top-k engine's RTL: outputs equal to the definition, the cycle of every beat equal to the timing function."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.harness import assert_same, engine_or_skip
from sim.topk_packets import Shape, Traffic, shapes, traffic
from topsieve_rtl.cosim import Case, Design, Engine, run
from topsieve_rtl.cosim.codec import pack
from topsieve_rtl.formal import combinational_paths
from topsieve_rtl.topk import BitonicSelect, QuickSelect, RadixSelect, TopKEngine, make_selector
from topsieve_sim.arch import SelectorKind
from topsieve_sim.golden.topk_select import quick_select
from topsieve_sim.stepped import StreamLog

KINDS = list(SelectorKind)


def engine_rtl(shape: Shape) -> TopKEngine:
    selector = make_selector(shape.kind, shape.lanes, shape.score_bits, shape.capacity, shape.seed, shape.radix_bits)
    return TopKEngine(selector, shape.load_lanes, shape.banks)


def check(shape: Shape, drawn: list[Traffic], engine: Engine = Engine.PYTHON) -> None:
    cases = [
        Case.through(case.beats, case.arrival_cycles, case.ready_pattern, len(case.outputs), limit_cycles=100_000)
        for case in drawn
    ]
    for case, log in zip(drawn, run(Design(engine_rtl(shape), "topk"), cases, engine), strict=True):
        predicted = StreamLog(case.times.accepted.tolist(), case.times.left.tolist(), case.outputs)
        assert_same(predicted, log.stream_log())
        assert log.finished


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(st.data())
def test_every_beat_in_the_predicted_cycle(kind, data):
    shape = data.draw(shapes((kind,), max_lanes=8, max_radix_bits=4))
    check(shape, data.draw(st.lists(traffic(shape, max_packets=3), min_size=4, max_size=4)))


FULL_SHAPES = [
    Shape(kind, lanes, load_lanes, bits, capacity, banks, radix_bits)
    for kind in KINDS
    for lanes, load_lanes, bits, capacity, banks, radix_bits in [
        (4, 2, 7, 50, 2, 3),
        (8, 8, 12, 96, 2, 4),
        (16, 16, 12, 250, 1, 4),
        (1, 1, 3, 12, 2, 2),
    ]
]


@pytest.mark.full
@pytest.mark.parametrize("shape", FULL_SHAPES, ids=str)
@settings(max_examples=26, deadline=None)
@given(st.data())
def test_every_beat_in_the_predicted_cycle_at_length(shape, data):
    engine = engine_or_skip(Engine.CXXRTL)
    check(shape, data.draw(st.lists(traffic(shape), min_size=10, max_size=10)), engine)


@pytest.mark.parametrize(
    "engine", [Engine.CXXRTL, Engine.ICARUS, pytest.param(Engine.VERILATOR, marks=pytest.mark.full)]
)
@settings(max_examples=1, deadline=None)
@given(st.data())
def test_every_engine_agrees(engine, data):
    shape = Shape(SelectorKind.QUICK, 2, 2, 5, 13)
    check(shape, data.draw(st.lists(traffic(shape), min_size=4, max_size=4)), engine_or_skip(engine))


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_every_round_of_quick_select_starts_in_the_predicted_cycle(data):
    shape = Shape(SelectorKind.QUICK, 4, 4, 8, 40)
    case = data.draw(traffic(shape, max_packets=1).filter(lambda case: case.outputs[-1][3] == 0))
    chunks, k = case.packets[0]
    scores = [score for chunk in chunks for score in chunk]
    expected = []
    if 0 < k < len(scores):
        rounds = np.zeros((60, 3), np.int64)
        *_, count = quick_select(np.array(scores, np.int64), k, 4, shape.seed, rounds)
        command = int(case.times.command[0])
        expected = [(command + int(first), int(size)) for first, _, size in rounds[:count]]
    assert observed_rounds(engine_rtl(shape), case) == expected


def observed_rounds(dut: TopKEngine, case: Traffic) -> list[tuple[int, int]]:
    """(cycle, elements) of each round's first row read."""
    selector = dut.selector
    assert isinstance(selector, QuickSelect)
    seen: list[tuple[int, int]] = []

    async def bench(context) -> None:
        following = 0
        context.set(dut.o.ready, 1)
        for cycle in range(int(case.times.left[-1]) + 20):
            offered = following < len(case.beats) and cycle >= case.arrival_cycles[following]
            context.set(dut.i.valid, offered)
            if offered:
                bits = pack(dut.i.payload.shape(), case.beats[following])
                context.set(dut.i.payload.as_value(), bits)
                following += context.get(dut.i.ready)
            if context.get(selector.round_starts):
                seen.append((cycle, context.get(selector.round_size)))
            await context.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_no_port_reaches_another_without_a_register(kind):
    assert combinational_paths(engine_rtl(Shape(kind, 4, 2, 6, 20))) == []


def test_parameters_are_checked():
    with pytest.raises(ValueError, match="lanes must be a power of two from 1 to 128, got 12"):
        QuickSelect(12, 8, 64)
    with pytest.raises(ValueError, match="seed must be from 1 to 65535, got 0"):
        QuickSelect(8, 8, 64, seed=0)
    with pytest.raises(ValueError, match="radix_bits must be from 1 to 8, got 9"):
        RadixSelect(8, 8, 64, radix_bits=9)
    with pytest.raises(ValueError, match="capacity must be at least 2, got 1"):
        BitonicSelect(8, 8, 1)
    with pytest.raises(ValueError, match="score_bits must be at least 1, got 0"):
        QuickSelect(8, 0, 64)
    with pytest.raises(ValueError, match="load_lanes must divide lanes = 8, got 3"):
        TopKEngine(QuickSelect(8, 8, 64), load_lanes=3)
    with pytest.raises(ValueError, match="banks must be 1 or 2, got 3"):
        TopKEngine(QuickSelect(8, 8, 64), banks=3)
