"""The attention unit in time: the fast recurrences equal the clock-by-clock machine, event for event."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.attention_strategies import machines, patterns
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.attention import flush_cycles
from topsieve_sim.golden.topk import SELECTOR_CODES, select_cycles
from topsieve_sim.stepped.attention import SteppedAttention
from topsieve_sim.timing import attention_kernel as kernel
from topsieve_sim.timing.attention import AttentionGroup, attention_events

COLUMNS = {
    "row": kernel.ROW,
    "second_pass": kernel.SECOND_PASS,
    "pick": kernel.PICK,
    "first_product": kernel.FIRST_PRODUCT,
    "last_product": kernel.LAST_PRODUCT,
    "filled": kernel.FILLED,
    "first_probability": kernel.FIRST_PROBABILITY,
    "last_probability": kernel.LAST_PROBABILITY,
    "last_weighted": kernel.LAST_WEIGHTED,
    "left": kernel.LEFT,
}


@st.composite
def groups(draw: Any, config: AcceleratorConfig) -> AttentionGroup:
    heads = draw(st.integers(1, 6))
    queries = draw(st.sampled_from([1, 1, 1, 2, 5]))
    keys = draw(st.integers(1, config.capacity))
    kept = draw(st.sampled_from([keys, max(keys // 2, 1), 1]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = heads * queries
    return AttentionGroup(
        heads=heads,
        queries=queries,
        keys=keys,
        kept=kept,
        head_dim=draw(st.integers(1, 8)),
        lsb_flags=rng.random(rows) < (share := draw(st.sampled_from([0.0, 0.3, 1.0]))),
        row_keys=rng.integers(1, keys + 1, rows) if draw(st.booleans()) else None,
        progressive=share > 0 or draw(st.booleans()),
    )


def with_scores(config: AcceleratorConfig, group: AttentionGroup, seed: int) -> tuple[AttentionGroup, list[list[int]]]:
    """Scores for the top-k engine, and the group with the selection times that follow from them."""
    rng = np.random.default_rng(seed)
    row_keys = np.full(group.heads * group.queries, group.keys) if group.row_keys is None else group.row_keys
    top = rng.choice([2, 1 << config.formats.probability_bits])
    scores = [rng.integers(0, top, n) for n in row_keys]
    topk = config.topk
    code = SELECTOR_CODES[topk.selector]
    cycles = [
        select_cycles(
            row, group.kept, code, topk.parallelism, config.formats.probability_bits, topk.seed, topk.radix_bits
        )[0]
        for row in scores
    ]
    flush = flush_cycles(np.concatenate(scores), row_keys, group.kept, topk.parallelism)
    timed = dataclasses.replace(group, select_cycles=np.array(cycles), flush_cycles=flush)
    return timed, [row.tolist() for row in scores]


@settings(max_examples=250, deadline=None)
@given(data=st.data(), config=machines(), memory=patterns(), output=patterns())
def test_fast_times_equal_the_stepped_machine(
    data: st.DataObject, config: AcceleratorConfig, memory: Any, output: Any
) -> None:
    group, scores = with_scores(config, data.draw(groups(config)), data.draw(st.integers(0, 2**32 - 1)))
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
