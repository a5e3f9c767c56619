"""The attention unit behind plane fetchers: the fast recurrences equal the clock-by-clock machine, event for event."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.attention_strategies import (
    COLUMNS,
    fetched_machines,
    groups,
    layouts,
    patterns,
    port_stalls,
    with_scores,
)
from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.stepped.attention import SteppedAttention
from topsieve_sim.stepped.fetched_memory import FetchRequest
from topsieve_sim.timing.attention import (
    BYTE_KIND_NAMES,
    CAUSE_NAMES,
    UNIT_NAMES,
    AttentionGroup,
    PortStalls,
    group_ports,
    run_group,
)


def assert_equal_to_stepped(
    config: AcceleratorConfig,
    group: AttentionGroup,
    scores: list[list[int]],
    stalls: PortStalls,
    query_stalls: PortStalls,
    output: Any,
) -> None:
    times, events = run_group(config, group, *group_ports(config, group, stalls, query_stalls), output_ready=output)
    stepped = SteppedAttention(config, group, scores, stalls, query_stalls)
    log = stepped.run(stalls.ready.tolist(), output.tolist())
    assert len(log) == events.shape[0]
    for line, row in zip(log, events, strict=True):
        assert {name: line.get(name, -1) for name in COLUMNS} == {name: row[at] for name, at in COLUMNS.items()}
    assert times.cycles[0] == stepped.total_cycles
    assert (times.unit_cycles[0].sum(axis=1) == times.cycles[0]).all()
    assert (times.unit_cycles >= 0).all()
    sizes = dict(zip(BYTE_KIND_NAMES, times.dram_bytes[0].tolist(), strict=True))
    assert sizes["key_msb"] + sizes["key_lsb"] + sizes["value"] == stepped.memory.bytes_asked
    assert stepped.queries is not None
    assert sizes["query"] == stepped.queries.bytes_asked
    for unit, seen in stepped.unit_cycles.items():
        found = dict(zip(CAUSE_NAMES, times.unit_cycles[0, UNIT_NAMES.index(unit)].tolist(), strict=True))
        # The stepped machine cannot know that a wait for input will be the last.
        found["waiting_for_input"] += found.pop("done")
        assert found == {cause: seen[cause] for cause in found}


@settings(max_examples=120, deadline=None)
@given(
    data=st.data(),
    config=fetched_machines(),
    stalls=port_stalls(),
    query_stalls=port_stalls(),
    output=patterns(),
    seed=st.integers(0, 2**32 - 1),
)
def test_fetched_times_equal_the_stepped_machine(
    data: st.DataObject, config: AcceleratorConfig, stalls: PortStalls, query_stalls: PortStalls, output: Any, seed: int
) -> None:
    group = data.draw(groups(config))
    group = dataclasses.replace(group, layout=data.draw(layouts(config, group)))
    if config.formats.key_lsb_bits == 0:
        group = dataclasses.replace(group, lsb_flags=False)
    group, scores = with_scores(config, group, seed)
    assert_equal_to_stepped(config, group, scores, stalls, query_stalls, output)


class Reconsiders(SteppedAttention):
    """Chooses between a repeated and a new row again in every cycle in which the query fetcher is not ready."""

    def _query(self, picked: tuple[int, bool] | None) -> FetchRequest | None:
        found = super()._query(picked)
        self.chosen = None
        return found


@pytest.mark.parametrize("seed", [17, 26, 29])
def test_the_choice_of_a_row_holds_until_its_query_is_asked_for(seed: int) -> None:
    """Groups in which a row is decided while a new one waits for the fetcher."""
    overrides = ["dot_product.multipliers=32", "weighted_sum.multipliers=32", "memory.beat_bytes=16"]
    config = load_config("tiny", [*overrides, "memory.latency_cycles=1"])
    rng = np.random.default_rng(seed)
    queries, keys = int(rng.integers(2, 9)), int(rng.integers(1, 5))
    head_dim, flags = int(rng.integers(1, 5)), rng.random(8 * queries) < 0.5
    group = AttentionGroup(heads=8, queries=queries, keys=keys, kept=keys, head_dim=head_dim, lsb_flags=flags)
    never = PortStalls()
    assert_equal_to_stepped(config, group, [], never, never, never.ready)
    assert Reconsiders(config, group).run([], []) != SteppedAttention(config, group).run([], [])
