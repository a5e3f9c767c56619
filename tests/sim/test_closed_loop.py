"""The attention unit in closed loop with the DRAM model."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topsieve_sim.arch import load_config
from topsieve_sim.closed_loop import loop
from topsieve_sim.closed_loop.commands import TokenPlaces
from topsieve_sim.closed_loop.layout import PlaneRows, accesses, place_planes
from topsieve_sim.closed_loop.loop import back_to_back, closed_loop
from topsieve_sim.closed_loop.memory import machine_memory
from topsieve_sim.timing.attention import AttentionGroup

LAYOUTS = ("head_major", "token_major", "paged")


def machine(layout: str = "head_major", *overrides: str):
    """The published machine with four channels of HBM2."""
    return load_config(
        "spatten", ["memory.model=dram", "memory.channels=4", f"memory.dram.layout={layout}", *overrides]
    )


@st.composite
def planes(draw):
    layout = draw(st.sampled_from(LAYOUTS))
    config = machine(layout, f"memory.dram.page_tokens={draw(st.integers(1, 9))}")
    rows = PlaneRows(*(draw(st.integers(1, 70)) for _ in range(5)))
    heads, shared, tokens = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 30))
    return config, rows, heads, heads * shared, tokens


@given(planes())
@settings(max_examples=60, deadline=None)
def test_no_two_rows_share_a_byte(case):
    config, rows, heads, query_heads, tokens = case
    placed = place_planes(config, rows, heads, query_heads, tokens, 64)
    intervals = []
    for name, plane in placed.items():
        for head in range(query_heads if name in ("query", "output") else heads):
            for address in plane.addresses(head, np.arange(tokens)).tolist():
                intervals.append((address, address + getattr(rows, name)))
    intervals.sort()
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(intervals))


@given(st.integers(1, 200), st.lists(st.integers(0, 60), min_size=1, max_size=40, unique=True), st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_accesses_cover_their_rows_and_no_beat_waits_for_more(row_bytes, tokens, lanes):
    addresses = np.sort(np.array(tokens)) * row_bytes
    made, needed = accesses(addresses, row_bytes, 64, lanes)
    wanted = [{a + n for n in range(row_bytes)} for a in addresses.tolist()]
    got: set[int] = set()
    beat = 0
    for number, address in enumerate(made.tolist()):
        got |= set(range(address, address + 64))
        while beat < needed.size and number + 1 == needed[beat]:
            complete = set().union(*wanted[: (beat + 1) * lanes])
            assert complete <= got
            assert not complete <= got - set(range(address, address + 64))
            beat += 1
    assert beat == needed.size == -(-len(tokens) // lanes)
    assert (np.diff(made) > 0).all()


def group_of(generator: np.random.Generator, **shape: int) -> tuple[AttentionGroup, TokenPlaces]:
    heads, queries, keys, kept = (shape[name] for name in ("heads", "queries", "keys", "kept"))
    rows = heads * queries
    group = AttentionGroup(
        heads=heads,
        queries=queries,
        keys=keys,
        kept=kept,
        head_dim=shape.get("head_dim", 64),
        lsb_flags=generator.random(rows) < shape.get("repeated_percent", 0) / 100,
        select_cycles=generator.integers(5, 60, rows),
        flush_cycles=generator.integers(0, 2, rows),
    )
    tokens = shape.get("tokens", keys)
    live = np.sort(generator.choice(tokens, keys, replace=False))
    survivors = np.sort(np.array([generator.choice(keys, kept, replace=False) for _ in range(rows)]), axis=1)
    queried = live[:queries] if queries <= keys else np.arange(queries)
    return group, TokenPlaces(max(tokens, queries), live, queried, survivors)


GROUPS = {
    "rows": {"heads": 3, "queries": 24, "keys": 24, "kept": 24},
    "pruned rows": {"heads": 3, "queries": 20, "keys": 20, "kept": 20, "tokens": 61},
    "repeated": {"heads": 3, "queries": 9, "keys": 40, "kept": 40, "tokens": 50, "repeated_percent": 30},
    "decoding": {"heads": 5, "queries": 1, "keys": 150, "kept": 150, "tokens": 400},
    "survivors": {"heads": 5, "queries": 1, "keys": 150, "kept": 31, "tokens": 400, "repeated_percent": 40},
}


@pytest.mark.parametrize(("name", "layout"), list(zip(GROUPS, LAYOUTS * 2, strict=False)))
def test_the_agreed_times_do_not_depend_on_the_first_guess(name, layout):
    group, places = group_of(np.random.default_rng(3), **GROUPS[name])
    config = machine(layout)
    found = closed_loop(config, group, places)
    first = loop.Script.first(config, group)
    slow = dataclasses.replace(
        first,
        arrival=first.arrival * 40,
        query=first.query + 977,
        free=first.free + 55,
        query_free=first.query_free + 3,
    )
    again = closed_loop(config, group, places, slow)
    settled = closed_loop(config, group, places, found.script)
    assert settled.rounds == 1
    assert (found.events == again.events).all()
    assert (found.times.unit_cycles == again.times.unit_cycles).all()
    assert found.counters == again.counters
    assert (found.moved_bytes == again.moved_bytes).all()


@pytest.mark.parametrize("name", GROUPS)
def test_a_real_memory_is_never_faster_than_one_without_delay(name):
    """The same machine whose memory answers in the next cycle is a lower bound on its cycles."""
    group, places = group_of(np.random.default_rng(4), **GROUPS[name])
    config = machine()
    found = closed_loop(config, group, places)
    bound = closed_loop_without_memory(config, group)
    assert found.times.cycles[0] >= bound
    assert found.moved_bytes.sum() >= found.times.dram_bytes.sum()
    assert (found.times.unit_cycles[0].sum(axis=1) == found.times.cycles[0]).all()


def closed_loop_without_memory(config, group) -> int:
    script = loop.Script.first(config, group)
    at_once = dataclasses.replace(script, arrival=script.arrival * 0 + 1, query=script.query * 0 + 1)
    times, _ = loop.run_group(config, group, *at_once.ports())
    return int(times.cycles[0])


def test_layouts_show_in_rows_and_cycles():
    """All tokens of a few heads: tokens of one head side by side stream, tokens of all heads side by side do not."""
    group, places = group_of(np.random.default_rng(5), heads=6, queries=1, keys=400, kept=400)
    found = {layout: closed_loop(machine(layout), group, places) for layout in LAYOUTS}
    activates = {layout: run.counters.activates for layout, run in found.items()}
    cycles = {layout: int(run.times.cycles[0]) for layout, run in found.items()}
    assert activates["head_major"] < activates["token_major"]
    assert cycles["head_major"] < cycles["paged"] < cycles["token_major"]


def test_the_first_of_several_on_one_memory_is_one_alone() -> None:
    group, places = group_of(np.random.default_rng(6), **GROUPS["survivors"])
    config = machine()
    alone, (first, second) = closed_loop(config, group, places), back_to_back(config, [(group, places)] * 2)
    assert (first.events == alone.events).all()
    assert first.counters == alone.counters
    assert (second.moved_bytes == alone.moved_bytes).all()
    served = [
        run.counters.read_commands + run.counters.merged_reads + run.counters.forwarded_reads for run in (alone, second)
    ]
    assert served[1] == 2 * served[0]


def test_refreshes_fall_due_across_groups_on_one_memory() -> None:
    """A group that is shorter than the refresh interval meets no refresh alone; a row of them meets all that fall due."""
    group, places = group_of(np.random.default_rng(7), heads=5, queries=1, keys=150, kept=150)
    config = machine()
    chain = back_to_back(config, [(group, places)] * 8)
    interval = machine_memory(config).timing.tREFI
    cycles = [int(run.times.cycles[0]) for run in chain]
    assert cycles[0] < interval < sum(cycles)
    due = sum(cycles) // interval * config.memory.channels
    assert chain[0].counters.refreshes == 0
    assert due <= chain[-1].counters.refreshes <= due + config.memory.channels
    assert sum(cycles) > len(chain) * cycles[0]
