"""Attention descriptors in closed loop with the DRAM: which rows of memory they touch, and what that costs.

A trace holds numbers of tokens, not which ones. Where tokens were pruned, the live ones are drawn uniformly from those of
the sequence, and where values are gathered without scores to decide by, so are the survivors; equal shapes draw
equal places, so equal descriptors stay equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.closed_loop.commands import Group, TokenPlaces
from topsieve_sim.closed_loop.loop import Script, closed_loop
from topsieve_sim.engine.program import AttentionWork
from topsieve_sim.timing.attention import AttentionTimes


@dataclass(frozen=True)
class MemoryCosts:
    """What the memory did for each group.

    moved_bytes : int64 [groups, kinds], whole accesses. activates : int64 [groups].
    """

    moved_bytes: NDArray[np.int64]
    activates: NDArray[np.int64]


def stored_tokens(work: AttentionWork, config: AcceleratorConfig, tokens: Mapping[tuple[int, int], int]) -> int:
    """Tokens that have a place in memory when a descriptor runs; `tokens` by (sequence, step)."""
    op = work.query_key
    # Evicted tokens leave their places to newer ones: what is live stands side by side.
    return op.keys if config.successor.evict else tokens[op.sequence, op.step]


def token_places(
    work: AttentionWork, tokens: int, survivors: NDArray[np.int64] | tuple[NDArray[np.int64], ...] | None
) -> TokenPlaces:
    """Rows of memory of a descriptor in a sequence of `tokens` tokens; `survivors` where data decided them."""
    op = work.query_key
    rows = work.kv_heads * work.rows_per_kv_head
    draw = np.random.default_rng((op.keys, tokens, work.kept, rows))
    keys = np.sort(draw.permutation(tokens)[: op.keys]).astype(np.int64)
    # The newest tokens ask; with as many queries as keys, all live ones do.
    queries = keys[-op.queries :] if op.queries <= op.keys else np.arange(op.queries, dtype=np.int64)
    gathers = work.kept < op.keys and work.rows_per_kv_head == 1
    if survivors is None:
        shape = (rows, work.kept) if gathers else (0, 0)
        drawn = np.empty(shape, np.int64)
        for row in range(shape[0]):
            drawn[row] = np.sort(draw.permutation(op.keys)[: work.kept])
        survivors = drawn
    return TokenPlaces(max(tokens, op.queries), keys, queries, survivors)


def closed_loop_times(
    config: AcceleratorConfig, groups: Sequence[Group], places: list[TokenPlaces]
) -> tuple[AttentionTimes, MemoryCosts]:
    """As `timing.attention.attention_times`, each group from an idle machine and an idle memory.

    Raises
    ------
    InputError
        a group does not fit the machine or its memory.
    """
    parts: list[AttentionTimes] = []
    moved: list[NDArray[np.int64]] = []
    activates: list[int] = []
    settled: dict[tuple[int, ...], Script] = {}
    for group, place in zip(groups, places, strict=True):
        shape = group.shape(config)
        run = closed_loop(config, group, place, settled.get(shape))
        settled[shape] = run.script
        # Only sums stay: events and accesses of a long trace would not fit in memory.
        parts.append(run.times)
        moved.append(run.moved_bytes)
        activates.append(run.counters.activates)
    times = AttentionTimes(
        cycles=np.concatenate([part.cycles for part in parts]),
        unit_cycles=np.concatenate([part.unit_cycles for part in parts]),
        dram_bytes=np.concatenate([part.dram_bytes for part in parts]),
    )
    return times, MemoryCosts(np.stack(moved), np.array(activates))
