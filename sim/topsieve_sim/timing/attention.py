"""Cycles, stalls and bytes of attention groups on the machine: the entry point for the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.errors import InputError
from topsieve_sim.golden.attention_latency import AttentionLatencies, attention_latencies
from topsieve_sim.timing.accounting import (
    BYTE_KIND_NAMES,
    BYTE_KINDS,
    CAUSE_NAMES,
    CAUSES,
    UNIT_NAMES,
    UNITS,
)
from topsieve_sim.timing.attention_kernel import EVENTS, group_times

__all__ = [
    "BYTE_KIND_NAMES",
    "CAUSE_NAMES",
    "UNIT_NAMES",
    "AttentionGroup",
    "AttentionTimes",
    "attention_events",
    "attention_times",
]

NO_STALLS = np.zeros(0, np.bool_)


@dataclass(frozen=True, kw_only=True)
class AttentionGroup:
    """One attention group: `heads` key-value heads in sequence, `queries` rows each.

    With grouped-query attention, `heads` counts key-value heads and `queries` the rows of all query heads that share
    one. `kept` < `keys` asks for local value selection: with one query a head only the survivors' value rows are
    fetched and weighted; with more, the head's values are resident and pruned probabilities are zeros.

    Parameters
    ----------
    lsb_flags : rows whose first pass is discarded, bool [heads * queries] or one bool for all.
    select_cycles : cycles of the top-k engine's selector, command to result (`golden.topk.select_cycles`), int
        [heads * queries] or one number; unused when all are kept.
    flush_cycles : 1 for rows whose survivors overflow the packer with the last filtered row
        (`golden.attention.flush_cycles`), else 0; int [heads * queries] or one number.
    row_keys : keys each row attends to (a prefix; causal masks), int [heads * queries]; default `keys`.
    progressive : the key planes stay until the decision; default: a second pass is possible (`key_lsb_bits` > 0 and
        enabled in the configuration).
    query_bits, key_msb_bits, key_lsb_bits, value_bits : default to the configuration's formats.
    """

    heads: int
    queries: int
    keys: int
    kept: int
    head_dim: int
    lsb_flags: NDArray[np.bool_] | bool = False
    select_cycles: NDArray[np.int64] | int = 0
    flush_cycles: NDArray[np.int64] | int = 0
    row_keys: NDArray[np.int64] | None = None
    progressive: bool | None = None
    query_bits: int | None = None
    key_msb_bits: int | None = None
    key_lsb_bits: int | None = None
    value_bits: int | None = None

    def check(self, config: AcceleratorConfig) -> None:
        """Raise `InputError` where the machine cannot run this group."""
        for name, value, low, high in (
            ("heads", self.heads, 1, 1 << 20),
            ("queries", self.queries, 1, 1 << 24),
            ("keys", self.keys, 1, config.capacity),
            ("kept", self.kept, 1, self.keys),
            ("head_dim", self.head_dim, 1, config.max_head_dim),
        ):
            if not low <= value <= high:
                raise InputError(
                    "out of range", source="attention group", field=name, value=value, allowed=f"{low} to {high}"
                )
        rows = self.heads * self.queries
        for name, array in (
            ("lsb_flags", self.lsb_flags),
            ("select_cycles", self.select_cycles),
            ("flush_cycles", self.flush_cycles),
            ("row_keys", self.row_keys),
        ):
            if isinstance(array, np.ndarray) and array.shape != (rows,):
                raise InputError(
                    "wrong shape", source="attention group", field=name, value=array.shape, allowed=f"({rows},)"
                )
        if self.row_keys is not None and not (self.row_keys.min() >= 1 and self.row_keys.max() <= self.keys):
            raise InputError(
                "out of range", source="attention group", field="row_keys", allowed=f"1 to keys = {self.keys}"
            )
        if np.any(self.lsb_flags) and not self._progressive(config):
            raise InputError(
                "rows ask for the LSB plane of a group without progressive quantisation",
                source="attention group",
                field="lsb_flags",
            )

    def _lsb_bits(self, config: AcceleratorConfig) -> int:
        return config.formats.key_lsb_bits if self.key_lsb_bits is None else self.key_lsb_bits

    def _progressive(self, config: AcceleratorConfig) -> bool:
        possible = config.progressive.enabled and self._lsb_bits(config) > 0
        return possible if self.progressive is None else self.progressive and self._lsb_bits(config) > 0

    def shape(self, config: AcceleratorConfig) -> tuple[int, ...]:
        """The line of scalars that the compiled kernel takes."""
        formats = config.formats
        lanes = config.softmax.lanes
        return (
            config.dot_product.interval_cycles(lanes, self.head_dim),
            config.weighted_sum.interval_cycles(lanes, self.head_dim),
            self.heads,
            self.queries,
            self.keys,
            self.kept,
            self.head_dim,
            formats.query_bits if self.query_bits is None else self.query_bits,
            formats.key_msb_bits if self.key_msb_bits is None else self.key_msb_bits,
            self._lsb_bits(config),
            formats.value_bits if self.value_bits is None else self.value_bits,
            formats.output_bits,
            int(self._progressive(config)),
        )


@dataclass(frozen=True)
class AttentionTimes:
    """What the groups cost.

    cycles : int64 [groups], from the group's start to the cycle after its last output row left.
    unit_cycles : int64 [groups, units, causes]; for each group and unit the causes sum to `cycles`
        (`UNIT_NAMES`, `CAUSE_NAMES`).
    dram_bytes : int64 [groups, kinds] (`BYTE_KIND_NAMES`).
    """

    cycles: NDArray[np.int64]
    unit_cycles: NDArray[np.int64]
    dram_bytes: NDArray[np.int64]

    @property
    def total_cycles(self) -> int:
        """Cycles of all groups, one after the other."""
        return int(self.cycles.sum())


def attention_times(
    config: AcceleratorConfig,
    groups: Sequence[AttentionGroup],
    *,
    memory_ready: NDArray[np.bool_] = NO_STALLS,
    output_ready: NDArray[np.bool_] = NO_STALLS,
) -> AttentionTimes:
    """Times of `groups`, each started on an empty machine (a group starts when the one before it has ended).

    `memory_ready` and `output_ready` (bool [cycles]) stall the memory and the output; both are always ready beyond
    their pattern's end.

    Raises
    ------
    InputError
        a group does not fit the machine.
    """
    times, _ = _run(config, groups, memory_ready, output_ready, record=False)
    return times


def attention_events(
    config: AcceleratorConfig,
    group: AttentionGroup,
    *,
    memory_ready: NDArray[np.bool_] = NO_STALLS,
    output_ready: NDArray[np.bool_] = NO_STALLS,
) -> tuple[AttentionTimes, NDArray[np.int64]]:
    """Times of one group and the event table of its rows in start order, int64 [started rows, events].

    The columns are named by the constants `ROW` to `LEFT` of `topsieve_sim.timing.attention_kernel`; -1 = not reached.
    """
    return _run(config, [group], memory_ready, output_ready, record=True)


def _run(
    config: AcceleratorConfig,
    groups: Sequence[AttentionGroup],
    memory_ready: NDArray[np.bool_],
    output_ready: NDArray[np.bool_],
    record: bool,
) -> tuple[AttentionTimes, NDArray[np.int64]]:
    offsets = np.zeros(len(groups) + 1, np.int64)
    for g, group in enumerate(groups):
        group.check(config)
        offsets[g + 1] = offsets[g] + group.heads * group.queries
    rows = int(offsets[-1])
    row_keys = np.empty(rows, np.int64)
    lsb_flags = np.empty(rows, np.bool_)
    select_cycles = np.empty(rows, np.int64)
    flush_cycles = np.empty(rows, np.int64)
    for g, group in enumerate(groups):
        part = slice(offsets[g], offsets[g + 1])
        row_keys[part] = group.keys if group.row_keys is None else group.row_keys
        lsb_flags[part] = group.lsb_flags
        select_cycles[part] = group.select_cycles
        flush_cycles[part] = group.flush_cycles
    shapes = np.array([group.shape(config) for group in groups], np.int64).reshape(len(groups), 13)
    tables = np.zeros((len(groups), UNITS, CAUSES), np.int64)
    sizes = np.zeros((len(groups), BYTE_KINDS), np.int64)
    events = np.zeros((rows + int(lsb_flags.sum()) if record else 0, EVENTS), np.int64)
    cycles = _many_group_times(
        attention_latencies(config), shapes, offsets, row_keys, lsb_flags, select_cycles, flush_cycles, memory_ready, output_ready,
        tables, sizes, events,
    )  # fmt: skip
    return AttentionTimes(cycles=cycles, unit_cycles=tables, dram_bytes=sizes), events


@njit(cache=True)
def _many_group_times(
    machine: AttentionLatencies,
    shapes: NDArray[np.int64],
    row_offset: NDArray[np.int64],
    row_keys: NDArray[np.int64],
    lsb_flags: NDArray[np.bool_],
    select_cycles: NDArray[np.int64],
    flush_cycles: NDArray[np.int64],
    memory_ready: NDArray[np.bool_],
    output_ready: NDArray[np.bool_],
    tables: NDArray[np.int64],
    sizes: NDArray[np.int64],
    events: NDArray[np.int64],
) -> NDArray[np.int64]:
    """`group_times` of every group, each from its own cycle 0; `shapes` has one line of the scalar arguments each."""
    groups = shapes.shape[0]
    cycles = np.zeros(groups, np.int64)
    for g in range(groups):
        shape = shapes[g]
        a, b = row_offset[g], row_offset[g + 1]
        cycles[g] = group_times(
            machine, shape[0], shape[1], shape[2], shape[3], shape[4], shape[5], shape[6], shape[7], shape[8],
            shape[9], shape[10], shape[11], shape[12] != 0, row_keys[a:b], lsb_flags[a:b], select_cycles[a:b], flush_cycles[a:b],
            memory_ready, output_ready, tables[g], sizes[g], events,
        )  # fmt: skip
    return cycles
