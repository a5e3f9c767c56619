# amaranth: UnusedElaboratable=no
"""The comparison can fail: planted errors are caught, and the report points at them."""

from __future__ import annotations

import pytest
from amaranth import unsigned
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.harness import ALL_ENGINES, assert_same, compare, engine_or_skip, stalled_cases
from rtl.harness.datapaths import Affine, affine
from topsieve_rtl.cosim import Case, Design, Engine, first_divergence, run
from topsieve_rtl.stream import CreditPipeline, Fifo
from topsieve_sim.stepped import StreamLog, run_stepped
from topsieve_sim.stepped.pipeline import CreditPipeline as SteppedPipeline

BITS = 8


def planted(case: Case, *, stages: int, depth: int, function=lambda beat: affine(beat, BITS)) -> None:
    design = Design(CreditPipeline(Affine(BITS, 3), 5), "planted")
    compare(design, lambda: SteppedPipeline(function, stages + 1, depth), [case])


@settings(max_examples=10, deadline=None)
@given(case=stalled_cases(st.integers(0, 255)).filter(lambda case: case.sources["i"].beats))
def test_one_cycle_of_latency_too_many_is_caught(case):
    # A stall can hide a cycle; without one every single beat shows it.
    free = Case.through(case.sources["i"].beats, case.sources["i"].arrival_cycles, [], len(case.sources["i"].beats))
    planted(free, stages=3, depth=5)
    with pytest.raises(AssertionError, match="first divergence on channel o"):
        planted(free, stages=2, depth=5)


def test_a_slot_too_few_is_caught():
    stalled = Case.through(list(range(10)), [0] * 10, [False] * 20, 10)
    with pytest.raises(AssertionError, match="first divergence on channel i"):
        planted(stalled, stages=3, depth=4)


def test_a_wrong_bit_is_caught():
    with pytest.raises(AssertionError, match=r"o\[1\]"):
        planted(Case.through([1, 2], [0, 0], [], 2), stages=3, depth=5, function=lambda beat: affine(beat, BITS) & ~2)


@pytest.mark.parametrize("name", [engine for engine in ALL_ENGINES if engine is not Engine.VERILATOR])
def test_planted_latency_is_caught_on_every_engine(name):
    engine = engine_or_skip(name)
    design = Design(Fifo(unsigned(BITS), 4), "fifo")
    case = Case.through([1, 2, 3], [0, 1, 2], [], 3)
    with pytest.raises(AssertionError, match="first divergence"):
        compare(design, lambda: SteppedPipeline(lambda beat: beat, 2, 4), [case], engine)


def test_an_invented_beat_is_caught():
    design = Design(Fifo(unsigned(BITS), 4), "fifo")
    (log,) = run(design, [Case.through([1, 2], [0, 0], [], 1)])
    model = run_stepped(SteppedPipeline(lambda beat: beat, 1, 4), [1], [0], [], 1)
    divergence = first_divergence(model, log.stream_log())
    assert divergence is not None
    assert divergence.left != divergence.right


def test_the_report_shows_both_sides_and_ten_events_before():
    left = StreamLog(list(range(20)), list(range(1, 21)), list(range(20)))
    right = StreamLog(list(range(20)), [*range(1, 15), *range(16, 22)], list(range(20)))
    divergence = first_divergence(left, right)
    assert divergence.channel == "o"
    assert (divergence.left.cycle, divergence.left.sequence) == (15, 14)
    assert len(divergence.before_left) == len(divergence.before_right) == 10
    text = str(divergence)
    assert text.startswith("first divergence on channel o\nmodel: cycle 15: o[14] 14\n    before: ")
    assert "RTL: " in text
    assert_same(left, left)
