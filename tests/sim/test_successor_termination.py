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
from topsieve_sim.timing.attention import BYTE_KIND_NAMES, CAUSE_NAMES, UNIT_NAMES
from topsieve_sim.timing.attention_kernel import LEFT
from topsieve_sim.timing.memory_port import no_port, scripted_port
from topsieve_sim.timing.termination import run_terminated, terminated_events, terminated_times
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


@settings(max_examples=120, deadline=None)
@given(data=st.data(), config=terminating_machines(), memory=patterns(), output=patterns())
def test_fast_times_equal_the_stepped_machine(
    data: st.DataObject, config: AcceleratorConfig, memory: Any, output: Any
) -> None:
    assert_equal_to_stepped(config, data.draw(termination_groups(config)), memory, output)


@pytest.mark.parametrize("field", TerminationLatencies._fields)
def test_every_latency_and_size_matters(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong constant cannot hide: one more or one less changes an event."""
    config = load_config(
        "tiny",
        [
            "memory.model=ideal",
            "successor.termination_threshold=0.1",
            "successor.tile_keys=8",
            "successor.partial_rows=2",
            "successor.buffered_heads=8",
        ],
    )
    counts = np.array([[3, 0, 8, 1]] * 9)
    group = TerminationGroup(heads=9, queries=1, keys=32, head_dim=4, candidates=counts, whole=np.arange(9) % 2 == 0)
    truth = terminated_events(config, group)[1].tolist()
    # The store of sums decides how many rows are under way; a beat more of it is no row more.
    step = 16 if field == "partial_beats" else 1
    for change in (-step, step):
        wrong = termination_latencies(config)
        wrong = wrong._replace(**{field: getattr(wrong, field) + change})
        monkeypatch.setattr("topsieve_sim.timing.termination.termination_latencies", lambda _, wrong=wrong: wrong)
        monkeypatch.setattr("topsieve_sim.timing.termination_group.termination_latencies", lambda _, wrong=wrong: wrong)
        if field == "tile_beats":
            with pytest.raises((AssertionError, InputError, IndexError)):
                assert terminated_events(config, group)[1].tolist() == truth
            return
        if terminated_events(config, group)[1].tolist() != truth:
            return
    raise AssertionError(f"{field} may be anything")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"keys": 1025}, "keys"),
        ({"queries": 99}, "queries"),
        ({"head_dim": 65}, "head_dim"),
        ({"whole": np.zeros(3, np.bool_)}, "whole"),
        ({"candidates": np.array([[101], [1]])}, "candidates"),
        ({"candidates": np.array([[0], [1]])}, "candidates"),
    ],
)
def test_groups_the_machine_cannot_run_are_refused(change: dict[str, Any], field: str) -> None:
    shape = {"heads": 2, "queries": 1, "keys": 100, "head_dim": 64}
    data = {"candidates": np.array([[20], [20]]), "whole": np.ones(2, np.bool_)}
    config = load_config("spatten", ["successor.termination_threshold=0.001"])
    with pytest.raises(InputError, match=field):
        terminated_times(config, [TerminationGroup(**(shape | data | change))])


def test_bytes_are_those_of_planes_and_candidates() -> None:
    config = load_config("spatten", ["successor.termination_threshold=0.001"])
    counts, whole = np.array([[20], [30]]), np.array([True, False])
    group = TerminationGroup(heads=2, queries=3, keys=100, head_dim=64, candidates=counts, whole=whole)
    times = terminated_times(config, [group])
    found = dict(zip(BYTE_KIND_NAMES, times.dram_bytes[0].tolist(), strict=True))
    assert found == {
        "key_msb": 2 * 100 * 64,
        "key_lsb": 20 * 64 // 2,
        "value": 50 * 64 * 12 // 8,
        "query": 6 * 64 * 12 // 8,
        "output": 6 * 64 * 16 // 8,
    }


def test_ports_of_the_closed_loop_bound_the_ideal_memory() -> None:
    config = load_config(
        "spatten", ["successor.termination_threshold=0.001", "successor.buffered_heads=4", "memory.latency_cycles=60"]
    )
    counts = np.array([[40], [3], [90], [17], [60]])
    group = TerminationGroup(heads=5, queries=1, keys=300, head_dim=64, candidates=counts, whole=np.arange(5) % 2 == 0)
    slow = 10_000
    quick, late = (
        run_terminated(config, group, scripted_port(np.full(999, delay), 99), no_port())[1] for delay in (1, slow)
    )
    ideal = terminated_events(config, group)[1]
    # A memory without delay bounds the ideal one from below, one that always takes long from above.
    assert (quick[:, LEFT].max(), ideal[:, LEFT].max()) < (ideal[:, LEFT].max(), late[:, LEFT].max())
    assert late[:, LEFT].max() > slow
    fetched = run_terminated(config, group, scripted_port(np.full(999, 1), 99), scripted_port(np.full(99, 1), 99))
    assert fetched[0].dram_bytes[0, 3] == 2 * 5 * 96
    assert quick[:, LEFT].max() <= fetched[1][:, LEFT].max() <= quick[:, LEFT].max() + 8
