"""What holds for every rival on every trace: exact when nothing is dropped, never cheaper than its own arithmetic."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.rival_cases import EIGHTH, TINY, heads_of, plain_attention, traces
from topsieve_sim.engine import prepare
from topsieve_sim.rivals import Rival, build
from topsieve_sim.rivals.comparison import rival_total
from topsieve_sim.rivals.heads import trace_operands
from topsieve_sim.rivals.pipeline import dealt_cycles

# Each machine with knobs under which it drops nothing.
KEEPS_ALL = (
    "a3:search=0,margin_percent=0",
    "mnnfast:threshold=0",
    "mnnfast:threshold=0,overlap=true",
    "elsa:degree=0",
    "sanger:threshold=0",
    "token_picker:threshold=0",
    "token_picker:threshold=0,chunks=5",
    "systolic:dataflow=os",
    "systolic:dataflow=ws",
    "systolic:dataflow=is",
)
APPROXIMATE = (
    "a3",
    "a3:search=0.125,margin_percent=10,spilled=true",
    "mnnfast:threshold=0.05",
    "elsa",
    "sanger:threshold=0.05",
    "token_picker:threshold=0.05",
)
# Knobs whose every step up drops more. A3's search is none: a further product can take a key's estimate under zero.
# Token-Picker's threshold is none: a key dropped earlier leaves a looser bound to the others.
MONOTONE = (
    "a3:search=0,margin_percent={}",
    "mnnfast:threshold={}",
    "mnnfast:overlap=true,threshold={}",
    "elsa:degree={}",
    "sanger:threshold={}",
)
CONFIGS = st.sampled_from([TINY, EIGHTH])


def machine(text: str) -> Rival:
    rival = build(text)
    assert isinstance(rival, Rival)
    return rival


def totals(text, trace, config):
    return rival_total(prepare(trace), config, machine(text), trace_operands(trace))


@pytest.mark.parametrize("text", KEEPS_ALL)
@settings(max_examples=15)
@given(trace=traces(), config=CONFIGS)
def test_keeping_everything_is_exact_attention(text, trace, config):
    """Against sums written number by number; the bound is float64 rounding over at most 32 terms."""
    rival = machine(text)
    heads = heads_of(trace, config)
    learned = rival.learned(heads)
    for head in heads:
        found, wanted = rival.cost(head, config, learned).output, plain_attention(head)
        assert np.linalg.norm(found - wanted) <= 1e-12 * max(np.linalg.norm(wanted), 1e-3)


@pytest.mark.parametrize("text", KEEPS_ALL)
@settings(max_examples=15)
@given(trace=traces(), config=CONFIGS)
def test_keeping_everything_costs_the_dense_bound(text, trace, config):
    total = totals(text, trace, config)
    multipliers = config.dot_product.multipliers + config.weighted_sum.multipliers
    dense_macs = sum(2 * head.scores_seen * head.head_dim for head in heads_of(trace, config))
    assert total.macs >= dense_macs
    assert total.cycles >= math.ceil(dense_macs / multipliers)
    op, closing = trace.ops[0], trace.ops[-1]
    bits = op.heads * op.queries * op.head_dim * (op.query_bits + config.formats.output_bits)
    bits += op.kv_heads * op.keys * op.head_dim * (op.key_msb_bits + op.key_lsb_bits + closing.value_bits)
    assert total.dram_bits >= bits


@pytest.mark.parametrize("text", KEEPS_ALL + APPROXIMATE)
@settings(max_examples=15)
@given(trace=traces(), config=CONFIGS)
def test_no_array_works_more_than_all_the_time(text, trace, config):
    total = totals(text, trace, config)
    multipliers = config.dot_product.multipliers + config.weighted_sum.multipliers
    assert 0 < total.macs <= total.cycles * multipliers
    written = trace.ops[0].heads * trace.ops[0].queries * trace.ops[0].head_dim * config.formats.output_bits
    assert (total.dram_bits - written) / 8 <= total.cycles * config.memory.bytes_per_cycle
    assert all(value >= 0 for value in total.extra_pj)


@pytest.mark.parametrize("text", MONOTONE)
@settings(max_examples=15)
@given(trace=traces(min_keys=8), config=CONFIGS, knobs=st.lists(st.floats(0.0, 0.9), min_size=2, max_size=4))
def test_a_sharper_knob_never_costs_more(text, trace, config, knobs):
    runs = [totals(text.format(knob), trace, config) for knob in sorted(knobs)]
    for gentle, sharp in pairwise(runs):
        assert sharp.macs <= gentle.macs
        assert sharp.cycles <= gentle.cycles
        assert sharp.dram_bits == gentle.dram_bits


@settings(max_examples=40)
@given(
    trace=traces(),
    config=CONFIGS,
    threshold=st.floats(1e-4, 0.5),
    chunks=st.integers(1, 6),
)
def test_the_per_key_machine_never_drops_what_matters(trace, config, threshold, chunks):
    """Whatever the order of arrival: a dropped key has less than the threshold; no key takes more than all its chunks."""
    rival = machine(f"token_picker:threshold={threshold},chunks={chunks}")
    whole = machine(f"token_picker:threshold=0,chunks={chunks}")
    for head in heads_of(trace, config):
        scores = np.where(head.visible, head.operands.scores, -np.inf)
        probability = np.exp(scores - scores.max(axis=1, keepdims=True))
        probability /= probability.sum(axis=1, keepdims=True)
        cost, dense = rival.cost(head, config, 0.0), whole.cost(head, config, 0.0)
        _, kept, _ = rival.picked(head, head.operands, config)
        assert kept[probability >= threshold * (1 + 1e-9)].all()
        assert cost.weighted == kept.sum()
        assert cost.score_macs <= dense.score_macs == head.scores_seen * head.head_dim
        # What was dropped of a row cannot move its output further than twice its probability times the largest value.
        exact, largest = probability @ head.operands.value, np.abs(head.operands.value).max()
        dropped = np.minimum(threshold * head.row_keys, 1.0)
        assert (np.abs(cost.output - exact).max(axis=1) <= 2 * dropped * largest + 1e-12).all()


def stepped(load, before, jobs, tails, units):
    """The same machine, clock by clock: `jobs` holds the cycles of each head's jobs."""
    order = [(head, cycles) for head, mine in enumerate(jobs) for cycles in mine]
    unit_of = [number % units for number in range(len(order))]
    left = [len(mine) for mine in jobs]
    queues = [[number for number in range(len(order)) if unit_of[number] == unit] for unit in range(units)]
    running = [None] * units
    loading, loading_left = 0, load[0]
    preparing, preparing_left = 0, before[0]
    prepared = [False] * len(load)
    loaded = [False] * len(load)
    finished: list[int | None] = [None] * len(load)
    cycle = 0
    while True:
        changed = True
        while changed:  # everything that takes no time
            changed = False
            if (
                loading < len(load)
                and loading_left == 0
                and (loading <= units or finished[loading - units - 1] is not None)
            ):
                loaded[loading] = changed = True
                loading += 1
                loading_left = load[loading] if loading < len(load) else 0
            if preparing < len(load) and loaded[preparing] and preparing_left == 0:
                prepared[preparing] = changed = True
                preparing += 1
                preparing_left = before[preparing] if preparing < len(load) else 0
            for unit in range(units):
                if running[unit] is not None and running[unit][1] == 0:
                    left[order[running[unit][0]][0]] -= 1
                    running[unit] = None
                    changed = True
                if running[unit] is None and queues[unit] and prepared[order[queues[unit][0]][0]]:
                    number = queues[unit].pop(0)
                    running[unit] = [number, order[number][1]]
                    changed = True
            for head in range(len(load)):
                if finished[head] is None and prepared[head] and left[head] == 0:
                    finished[head] = cycle
                    changed = True
        if all(end is not None for end in finished):
            return max(end + tail for end, tail in zip(finished, tails, strict=True))
        if loading < len(load) and loading_left and (loading <= units or finished[loading - units - 1] is not None):
            loading_left -= 1
        if preparing < len(load) and loaded[preparing] and preparing_left:
            preparing_left -= 1
        for unit in range(units):
            if running[unit] is not None:
                running[unit][1] -= 1
        cycle += 1


@given(
    heads=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 5), st.lists(st.integers(0, 7), max_size=4), st.integers(0, 6)),
        min_size=1,
        max_size=6,
    ),
    units=st.integers(1, 4),
)
def test_the_recurrence_is_the_stepped_pipeline(heads, units):
    load, before, jobs, tails = (list(column) for column in zip(*heads, strict=True))
    counts = [len(mine) for mine in jobs]
    found = dealt_cycles(
        np.array(load, np.int64),
        np.array(before, np.int64),
        np.repeat(np.arange(len(jobs)), counts).astype(np.int64),
        np.array([cycles for mine in jobs for cycles in mine], np.int64),
        np.array(tails, np.int64),
        units,
    )
    assert found == stepped(load, before, jobs, tails, units)
