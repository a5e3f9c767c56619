"""Cycles of the cascade unit's commands, each from its handshake to the first cycle in which the next can be taken."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.energy import cascade_score_bits
from topsieve_sim.golden.accelerator_latency import (
    CASCADE_COMMAND,
    CASCADE_FINISH,
    CASCADE_FIRST,
    CASCADE_PACK,
    CASCADE_SERIALISE,
)
from topsieve_sim.golden.attention_latency import (
    ImportanceLatencies,
    head_importance_latencies,
    token_importance_latencies,
)
from topsieve_sim.golden.topk import SELECTOR_CODES
from topsieve_sim.timing.topk import packet_rows, row_survivors, select_cycles, topk_times

__all__ = [
    "PruneTimes",
    "RecordTimes",
    "prune_heads_times",
    "prune_tokens_times",
    "record_times",
    "reset_tokens_cycles",
]


class PruneTimes(NamedTuple):
    """What a pruning takes."""

    cycles: int
    """From its command's handshake to the next command."""
    load_beats: int
    """Beats of scores that the engine loads."""
    select_cycles: int
    """Its selector, command to result."""
    rows: int
    """Rows that it filters."""


NOTHING = PruneTimes(CASCADE_COMMAND, 0, 0, 0)


class RecordTimes(NamedTuple):
    """When the report's records are offered: record i from max(earliest[i], handshake of i - 1 + gap[i]) on."""

    earliest: NDArray[np.int64]
    """[records], from the command's handshake on."""
    gap: NDArray[np.int64]
    """[records], at least 1; dead heads pass between."""


def reset_tokens_cycles(tokens: int) -> int:
    """Cost of writing the live list."""
    return CASCADE_FIRST + tokens


def prune_tokens_times(config: AcceleratorConfig, importance: NDArray[np.int64], keep: int) -> PruneTimes:
    """Pruning the live tokens, whose `importance` is int64 [live], in the order of the live list, to `keep`."""
    if keep >= importance.size:
        return NOTHING
    load_lanes = min(config.softmax.lanes, config.topk.parallelism)
    first = CASCADE_FIRST + _readout_cycles(token_importance_latencies())
    return _prune(config, importance, keep, first + np.arange(packet_rows(importance.size, load_lanes)))


def prune_heads_times(
    config: AcceleratorConfig, importance: NDArray[np.int64], alive: NDArray[np.bool_], keep: int
) -> PruneTimes:
    """Pruning the `alive` (bool [heads]) heads, with accumulators `importance` int64 [heads], to `keep`."""
    places = np.flatnonzero(alive)
    if keep >= places.size:
        return NOTHING
    load_lanes = min(config.softmax.lanes, config.topk.parallelism)
    first = CASCADE_FIRST + _readout_cycles(head_importance_latencies(config))
    beats = packet_rows(places.size, load_lanes)
    completing = np.minimum(load_lanes * np.arange(1, beats + 1), places.size) - 1
    return _prune(config, importance[places], keep, first + places[completing] + CASCADE_PACK)


def record_times(config: AcceleratorConfig, tokens: int, alive: NDArray[np.bool_]) -> RecordTimes:
    """The report of `tokens` live tokens and the `alive` (bool [heads]) heads: header, tokens, heads."""
    lanes = config.softmax.lanes
    places = np.flatnonzero(alive)
    token_words = CASCADE_FIRST + _readout_cycles(token_importance_latencies()) + np.arange(tokens) // lanes
    head_words = CASCADE_FIRST + _readout_cycles(head_importance_latencies(config)) + places
    earliest = np.concatenate([[CASCADE_FIRST], token_words, head_words])
    gap = np.concatenate([np.ones(1 + tokens, np.int64), np.diff(places, prepend=-1)])
    return RecordTimes(earliest.astype(np.int64), gap.astype(np.int64))


def _readout_cycles(latencies: ImportanceLatencies) -> int:
    """A readout's handshake to its first word."""
    return latencies.add + latencies.readout


def _prune(config: AcceleratorConfig, scores: NDArray[np.int64], keep: int, arrival: NDArray[np.int64]) -> PruneTimes:
    topk = config.topk
    cycles, kth, quota, _ = select_cycles(
        scores,
        keep,
        SELECTOR_CODES[topk.selector.value],
        topk.parallelism,
        cascade_score_bits(config),
        topk.seed,
        topk.radix_bits,
    )
    survivors = row_survivors(scores, kth, quota, topk.parallelism)
    # The sink takes a beat and is ready again when the beat's last element is in the list: all beats but the last are
    # full. Which cycles these are is found beat by beat.
    ready = np.ones(0, np.bool_)
    while True:
        left = topk_times(
            arrival.astype(np.int64),
            np.array([arrival.size], np.int64),
            np.array([survivors.size], np.int64),
            np.array([cycles], np.int64),
            survivors,
            ready,
            topk.parallelism,
            1,
        ).left
        early = np.flatnonzero(np.diff(left) < topk.parallelism)
        if not early.size:
            break
        beat = int(left[early[0]])
        longer = np.ones(max(beat + topk.parallelism, ready.size), np.bool_)
        longer[: ready.size] = ready
        longer[beat + 1 : beat + topk.parallelism] = False
        ready = longer
    in_last_beat = keep - topk.parallelism * (left.size - 1)
    last = int(left[-1]) + CASCADE_SERIALISE + in_last_beat - 1
    return PruneTimes(last + CASCADE_FINISH, int(arrival.size), int(cycles), int(survivors.size))
