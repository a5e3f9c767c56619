"""The zero eliminator: its function, and one beat per cycle at every width."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topsieve_sim.golden.zero_eliminator import compact
from topsieve_sim.stepped import run_stepped
from topsieve_sim.stepped.zero_eliminator import ZeroEliminator
from topsieve_sim.timing.zero_eliminator import zero_eliminator_times


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99), st.booleans()), min_size=1, max_size=20))
def test_valid_lanes_move_to_the_front_in_order(lanes):
    values, valid = zip(*lanes, strict=True)
    packed, count = compact(values, valid, -1)
    assert count == sum(valid)
    assert list(packed[:count]) == [value for value, keep in lanes if keep]
    assert set(packed[count:]) <= {-1}
    assert len(packed) == len(lanes)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_fast_timing_equals_the_stepped_unit(lanes, seed):
    generator = np.random.default_rng(seed)
    beats = [
        (tuple(range(lanes)), tuple(generator.integers(0, 2, lanes).tolist()), int(generator.integers(0, 2)))
        for _ in range(int(generator.integers(1, 30)))
    ]
    arrival = np.cumsum(generator.integers(0, 3, len(beats)))
    ready = generator.random(80) < 0.6
    log = run_stepped(ZeroEliminator(lanes), beats, arrival.tolist(), ready.tolist(), len(beats))
    entered, left = zero_eliminator_times(arrival, ready, lanes)
    assert log.input_cycles == entered.tolist()
    assert log.output_cycles == left.tolist()
    assert [count for _, count, _ in log.outputs] == [sum(valid) for _, valid, _ in beats]


@pytest.mark.parametrize("lanes", [1, 2, 3, 8, 16, 31, 64, 128])
def test_one_beat_per_cycle_at_every_width(lanes):
    entered, left = zero_eliminator_times(np.zeros(50, np.int64), np.zeros(0, np.bool_), lanes)
    assert entered.tolist() == list(range(50))
    assert np.diff(left).tolist() == [1] * 49
