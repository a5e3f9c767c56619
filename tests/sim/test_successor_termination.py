"""Early termination in time: the fast recurrences equal the clock-by-clock machine, event for event."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.attention_strategies import COLUMNS, machines, patterns
from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.arch.config import SuccessorConfig
from topsieve_sim.errors import InputError
from topsieve_sim.golden.attention_latency import TerminationLatencies, termination_latencies
from topsieve_sim.stepped.termination import SteppedTermination
from topsieve_sim.timing import termination
from topsieve_sim.timing.attention import CAUSE_NAMES, UNIT_NAMES
from topsieve_sim.timing.termination import terminated_events, terminated_times
from topsieve_sim.timing.termination_group import TerminationGroup, partial_rows, tile_counts


@st.composite
def terminating_machines(draw: Any) -> AcceleratorConfig:
    config = draw(machines())
    return config.model_copy(
        update={
            "successor": SuccessorConfig(
                buffered_heads=draw(st.sampled_from([0, 1, 4, 7])),
                termination_threshold=0.1,
                tile_keys=config.softmax.lanes * draw(st.sampled_from([0, 1, 2])),
                partial_rows=draw(st.sampled_from([2, 3, 6])),
            )
        }
    )


@st.composite
def termination_groups(draw: Any, config: AcceleratorConfig) -> TerminationGroup:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    heads, keys = draw(st.integers(1, 6)), draw(st.integers(1, config.capacity))
    candidates = rng.random((heads, keys)) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    candidates[np.arange(heads), rng.integers(0, keys, heads)] = True
    return TerminationGroup(
        heads=heads,
        queries=draw(st.integers(1, min(4, partial_rows(config, keys)))),
        keys=keys,
        head_dim=draw(st.integers(1, 8)),
        candidates=tile_counts(candidates, config),
        whole=rng.random(heads) < draw(st.sampled_from([0.0, 0.5, 1.0])),
    )


def assert_equal_to_stepped(config: AcceleratorConfig, group: TerminationGroup, memory: Any, output: Any) -> None:
    times, events = terminated_events(config, group, memory_ready=memory, output_ready=output)
    stepped = SteppedTermination(config, group)
    log = stepped.run(memory.tolist(), output.tolist())
    assert len(log) == events.shape[0]
    for line, row in zip(log, events, strict=True):
        assert {name: line.get(name, -1) for name in COLUMNS} == {name: row[at] for name, at in COLUMNS.items()}
    assert times.cycles[0] == stepped.total_cycles
    assert (times.unit_cycles[0].sum(axis=1) == times.cycles[0]).all()
    assert (times.unit_cycles >= 0).all()
    assert times.dram_bytes[0, :3].sum() == stepped.memory.bytes_asked
    for unit, seen in stepped.unit_cycles.items():
        found = dict(zip(CAUSE_NAMES, times.unit_cycles[0, UNIT_NAMES.index(unit)].tolist(), strict=True))
        # The stepped machine cannot know that a wait for input will be the last.
        found["waiting_for_input"] += found.pop("done")
        assert found == {cause: seen[cause] for cause in found}


@settings(max_examples=200, deadline=None)
@given(data=st.data(), config=terminating_machines(), memory=patterns(), output=patterns())
def test_fast_times_equal_the_stepped_machine(
    data: st.DataObject, config: AcceleratorConfig, memory: Any, output: Any
) -> None:
    assert_equal_to_stepped(config, data.draw(termination_groups(config)), memory, output)
