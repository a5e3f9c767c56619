"""Attention descriptors in closed loop with the DRAM: which rows of memory they touch, and what that costs.

A trace holds numbers of tokens, not which ones. Where tokens were pruned, the live ones are drawn uniformly from those of
the sequence, and where values are gathered without scores to decide by, so are the survivors; equal shapes draw
equal places, so equal descriptors stay equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.closed_loop.loop import ClosedLoop, Group, Script, TokenPlaces, closed_loop
from topsieve_sim.engine.program import AttentionWork
from topsieve_sim.timing.attention import AttentionTimes


@dataclass(frozen=True)
class MemoryCosts:
    """What the memory did for each group.

    moved_bytes : int64 [groups, kinds], whole accesses. activates : int64 [groups].
    """

    moved_bytes: NDArray[np.int64]
    activates: NDArray[np.int64]


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
    runs: list[ClosedLoop] = []
    settled: dict[tuple[int, ...], Script] = {}
    for group, place in zip(groups, places, strict=True):
        shape = group.shape(config)
        runs.append(closed_loop(config, group, place, settled.get(shape)))
        settled[shape] = runs[-1].script
    times = AttentionTimes(
        cycles=np.concatenate([run.times.cycles for run in runs]),
        unit_cycles=np.concatenate([run.times.unit_cycles for run in runs]),
        dram_bytes=np.concatenate([run.times.dram_bytes for run in runs]),
    )
    moved = np.stack([run.moved_bytes for run in runs])
    return times, MemoryCosts(moved, np.array([run.counters.activates for run in runs]))
