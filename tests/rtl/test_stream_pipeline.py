# amaranth: UnusedElaboratable=no
"""The credit pipeline against its stepped model and its closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.harness import compare, stalled_cases
from rtl.harness.datapaths import Affine, affine
from topsieve_rtl.cosim import Case, Design, run
from topsieve_rtl.stream import CreditPipeline, Storage
from topsieve_sim.stepped.pipeline import CreditPipeline as SteppedPipeline
from topsieve_sim.timing.pipeline import pipeline_times

BITS = 7


@settings(max_examples=40, deadline=None)
@given(
    stages=st.integers(0, 5),
    depth=st.integers(1, 8),
    interval=st.integers(1, 4),
    storage=st.sampled_from([None, *Storage]),
    cases=st.lists(stalled_cases(st.integers(0, 2**BITS - 1)), min_size=1, max_size=3),
)
def test_equals_the_stepped_model(stages, depth, interval, storage, cases):
    pipeline = CreditPipeline(Affine(BITS, stages), depth, interval, storage)
    assert pipeline.latency_cycles == stages + 1
    compare(
        Design(pipeline, "pipeline"),
        lambda: SteppedPipeline(lambda beat: affine(beat, BITS), stages + 1, depth, interval),
        cases,
    )


@settings(max_examples=15, deadline=None)
@given(stages=st.integers(0, 3), depth=st.integers(1, 5), case=stalled_cases(st.integers(0, 2**BITS - 1)))
def test_equals_the_closed_form(stages, depth, case):
    (log,) = run(Design(CreditPipeline(Affine(BITS, stages), depth), "pipeline"), [case])
    entered, left = pipeline_times(
        np.asarray(case.sources["i"].arrival_cycles, np.int64),
        np.asarray(case.sinks["o"].ready_pattern, np.bool_),
        stages + 1,
        depth,
        1,
    )
    assert log.channels["i"].cycles == entered.tolist()
    assert log.channels["o"].cycles == left.tolist()


def test_full_throughput_takes_one_slot_more_than_the_latency():
    beats = list(range(20))
    case = Case.through(beats, [0] * 20, [], 20)
    for depth, cycles in ((4, list(range(20))), (3, None)):
        (log,) = run(Design(CreditPipeline(Affine(BITS, 2), depth), "pipeline"), [case])
        assert (log.channels["i"].cycles == list(range(20))) is (cycles is not None)


@pytest.mark.parametrize(("depth", "interval"), [(0, 1), (1, 0)])
def test_parameters_are_checked(depth, interval):
    with pytest.raises(ValueError, match=f"depth and interval must be at least 1, got {depth} and {interval}"):
        CreditPipeline(Affine(BITS, 1), depth, interval)


def test_stages_are_checked():
    with pytest.raises(ValueError, match="stages must be at least 0, got -1"):
        Affine(BITS, -1)
