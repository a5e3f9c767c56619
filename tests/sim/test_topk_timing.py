"""The engine's fast timing against the clock-by-clock reference, beat by beat and round by round."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.topk_packets import Shape, Traffic, shapes, traffic
from topsieve_sim.arch import SelectorKind
from topsieve_sim.golden.topk_select import quick_select
from topsieve_sim.stepped import run_stepped
from topsieve_sim.stepped.topk import TopKEngine, stepped_selector
from topsieve_sim.stepped.topk_quick import QuickSelect


def stepped_engine(shape: Shape) -> TopKEngine:
    selector = stepped_selector(shape.kind, shape.lanes, shape.score_bits, shape.seed, shape.radix_bits)
    return TopKEngine(selector, shape.capacity, shape.load_lanes, shape.banks)


def check(case: Traffic) -> None:
    log = run_stepped(
        stepped_engine(case.shape), case.beats, case.arrival_cycles, case.ready_pattern, len(case.outputs)
    )
    assert log.outputs == case.outputs
    assert log.input_cycles == case.times.accepted.tolist()
    assert log.output_cycles == case.times.left.tolist()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_fast_timing_equals_the_stepped_engine(data):
    check(data.draw(traffic(data.draw(shapes()))))


@pytest.mark.full
@pytest.mark.parametrize("kind", list(SelectorKind))
@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_fast_timing_equals_the_stepped_engine_at_length(kind, data):
    check(data.draw(traffic(data.draw(shapes((kind,))))))


@settings(max_examples=60, deadline=None)
@given(lanes=st.sampled_from([2, 4, 8, 16]), rows=st.integers(2, 9), seed=st.integers(0, 2**32 - 1))
def test_every_round_of_quick_select_starts_in_the_predicted_cycle(lanes, rows, seed):
    generator = np.random.default_rng(seed)
    n = int(generator.integers(2, lanes * rows + 1))
    k = int(generator.integers(1, n))
    scores = generator.integers(0, 1 << int(generator.integers(1, 13)), n)
    predicted = np.zeros((200, 3), np.int64)
    *_, count = quick_select(scores, k, lanes, 0xACE1, predicted)
    selector = QuickSelect(lanes, 12, 0xACE1)
    engine = TopKEngine(selector, lanes * rows, lanes)
    case = Traffic(
        Shape(SelectorKind.QUICK, lanes, lanes, 12, lanes * rows),
        [([scores[start : start + lanes].tolist() for start in range(0, n, lanes)], k)],
        [0] * -(-n // lanes),
        [],
    )
    run_stepped(engine, case.beats, case.arrival_cycles, [], len(case.outputs))
    command = int(case.times.command[0])
    assert selector.rounds == [(command + int(first), int(size)) for first, _, size in predicted[:count]]


def test_packets_back_to_back_load_without_a_gap():
    shape = Shape(SelectorKind.RADIX, 8, 8, 12, 64)
    rows = np.arange(64).reshape(8, 8).tolist()
    case = Traffic(shape, [(rows, 16)] * 2, [0] * 16, [])
    assert case.times.accepted.tolist() == list(range(16))


def test_the_filter_passes_a_row_per_cycle():
    shape = Shape(SelectorKind.RADIX, 16, 16, 12, 1024)
    rows = np.random.default_rng(0).integers(0, 4096, (64, 16)).tolist()
    case = Traffic(shape, [(rows, 512)], [0] * 64, [])
    assert np.diff(case.times.issued).tolist() == [1] * 63
