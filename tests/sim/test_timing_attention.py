"""The attention unit in time: the fast recurrences equal the clock-by-clock machine, event for event."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.attention_strategies import COLUMNS, groups, machines, patterns, with_scores
from topsieve_sim.arch import AcceleratorConfig, load_config, preset_names
from topsieve_sim.errors import InputError
from topsieve_sim.golden.attention_latency import AttentionLatencies, attention_latencies
from topsieve_sim.stepped.attention import SteppedAttention
from topsieve_sim.timing import attention as timing_attention
from topsieve_sim.timing.attention import (
    BYTE_KIND_NAMES,
    CAUSE_NAMES,
    UNIT_NAMES,
    AttentionGroup,
    attention_events,
    attention_times,
)


def assert_equal_to_stepped(
    config: AcceleratorConfig, group: AttentionGroup, scores: list[list[int]], memory: Any, output: Any
) -> None:
    times, events = attention_events(config, group, memory_ready=memory, output_ready=output)
    stepped = SteppedAttention(config, group, scores)
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


@settings(max_examples=250, deadline=None)
@given(data=st.data(), config=machines(), memory=patterns(), output=patterns(), seed=st.integers(0, 2**32 - 1))
def test_fast_times_equal_the_stepped_machine(
    data: st.DataObject, config: AcceleratorConfig, memory: Any, output: Any, seed: int
) -> None:
    group, scores = with_scores(config, data.draw(groups(config)), seed)
    assert_equal_to_stepped(config, group, scores, memory, output)


@pytest.mark.parametrize("preset", preset_names())
@pytest.mark.parametrize(("heads", "queries", "kept"), [(4, 1, 20), (1, 6, 90), (2, 3, 20)])
def test_presets_equal_the_stepped_machine(preset: str, heads: int, queries: int, kept: int) -> None:
    config = load_config(preset)
    rng = np.random.default_rng(heads)
    keys = min(90, config.capacity)
    group = AttentionGroup(
        heads=heads,
        queries=queries,
        keys=keys,
        kept=min(kept, keys),
        head_dim=min(64, config.max_head_dim),
        lsb_flags=rng.random(heads * queries) < 0.3,
    )
    group, scores = with_scores(config, group, 0)
    assert_equal_to_stepped(config, group, scores, rng.random(500) < 0.8, rng.random(500) < 0.8)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), config=machines())
def test_units_are_busy_for_exactly_their_beats(data: st.DataObject, config: AcceleratorConfig) -> None:
    group, _ = with_scores(config, data.draw(groups(config)), 0)
    times = attention_times(config, [group])
    busy = dict(zip(UNIT_NAMES, times.unit_cycles[0, :, 0].tolist(), strict=True))
    row_keys = np.full(group.heads * group.queries, group.keys) if group.row_keys is None else group.row_keys
    row_beats = -(-row_keys // config.softmax.lanes)
    flags = np.asarray(group.lsb_flags)
    started = int(row_beats.sum() + row_beats[flags].sum())
    assert busy["dot_product"] == started * config.dot_product.interval_cycles(config.softmax.lanes, group.head_dim)
    assert busy["softmax_fill"] == busy["softmax_exponential"] == started
    assert busy["softmax_normalise"] == row_beats.sum() + flags.sum()
    gathers = group.kept < group.keys and group.queries == 1
    weighted = -(-np.minimum(row_keys, group.kept) // config.softmax.lanes) if gathers else row_beats
    assert busy["weighted_sum"] == weighted.sum() * config.weighted_sum.interval_cycles(
        config.softmax.lanes, group.head_dim
    )
    if group.kept == group.keys:
        assert busy["topk"] == 0
    else:
        # Selection and filter of different rows may overlap, a row's own never.
        passes = -(-row_keys // config.topk.parallelism)
        assert busy["topk"] <= (np.asarray(group.select_cycles) + passes + 1).sum()
        assert busy["topk"] >= max(np.sum(group.select_cycles), passes.sum())


def test_many_groups_in_one_call_equal_each_alone() -> None:
    config = load_config("spatten")
    some = [
        AttentionGroup(heads=3, queries=1, keys=700, kept=140, head_dim=64, select_cycles=211),
        AttentionGroup(heads=2, queries=30, keys=30, kept=30, head_dim=64, lsb_flags=np.arange(60) % 7 == 0),
        AttentionGroup(heads=1, queries=1, keys=1, kept=1, head_dim=1),
    ]
    together = attention_times(config, some)
    for g, group in enumerate(some):
        alone = attention_times(config, [group])
        assert alone.cycles[0] == together.cycles[g]
        assert (alone.unit_cycles[0] == together.unit_cycles[g]).all()
        assert (alone.dram_bytes[0] == together.dram_bytes[g]).all()


def test_an_encoder_keeps_the_dot_product_array_busy() -> None:
    config = load_config("spatten")
    group = AttentionGroup(heads=12, queries=128, keys=128, kept=128, head_dim=64)
    times = attention_times(config, [group])
    ideal = 12 * 128 * 128 * 64 // config.dot_product.multipliers
    assert ideal <= times.total_cycles <= 1.01 * ideal


def test_bytes_follow_the_formats() -> None:
    config = load_config("spatten")
    flags = np.array([True, False])
    group = AttentionGroup(
        heads=2, queries=1, keys=100, kept=20, head_dim=64, select_cycles=9, lsb_flags=flags, key_msb_bits=6
    )
    times = attention_times(config, [group])
    expected = {
        "key_msb": 2 * 100 * 64 * 6 // 8,
        "key_lsb": 100 * 64 * 4 // 8,
        "value": 2 * 20 * 64 * 12 // 8,
        "query": 2 * 64 * 12 // 8,
        "output": 2 * 64 * 16 // 8,
    }
    assert dict(zip(BYTE_KIND_NAMES, times.dram_bytes[0].tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"keys": 1025}, "keys"),
        ({"kept": 0}, "kept"),
        ({"kept": 101}, "kept"),
        ({"head_dim": 65}, "head_dim"),
        ({"lsb_flags": np.zeros(3, np.bool_)}, "lsb_flags"),
        ({"row_keys": np.array([100, 0])}, "row_keys"),
        ({"lsb_flags": True, "key_lsb_bits": 0}, "lsb_flags"),
    ],
)
def test_groups_the_machine_cannot_run_are_refused(change: dict[str, Any], field: str) -> None:
    group = AttentionGroup(**({"heads": 2, "queries": 1, "keys": 100, "kept": 100, "head_dim": 64} | change))
    with pytest.raises(InputError, match=field):
        attention_times(load_config("spatten"), [group])


FIELDS = [name for name in AttentionLatencies._fields if name not in ("lanes", "banks", "topk_lanes")]


@pytest.mark.parametrize("field", FIELDS)
def test_every_latency_and_depth_matters(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong constant cannot hide: one more or one less changes an event of some group on a busy machine."""
    config = load_config("tiny", ["memory.latency_cycles=3"])
    rng = np.random.default_rng(1)
    stalls = rng.random(600) < 0.2
    some = [
        AttentionGroup(heads=9, queries=1, keys=32, kept=3, head_dim=1, select_cycles=2),
        AttentionGroup(heads=1, queries=30, keys=1, kept=1, head_dim=1, lsb_flags=rng.random(30) < 0.5),
        AttentionGroup(heads=2, queries=9, keys=32, kept=32, head_dim=8),
    ]

    def events() -> list[Any]:
        return [
            attention_events(config, group, output_ready=pattern)[1].tolist()
            for group in some
            for pattern in (stalls, np.zeros(0, np.bool_), np.zeros(900, np.bool_))
        ]

    right = events()
    machine = attention_latencies(config)
    wrong = machine._replace(**{field: getattr(machine, field) - 1})
    monkeypatch.setattr(timing_attention, "attention_latencies", lambda _: wrong)
    assert events() != right
