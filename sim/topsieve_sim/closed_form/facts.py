"""What a trace and its data decide before any time is known: rows, second passes, selections, bytes, actions.

The same for all machines that decide alike (`engine.attention.memo_of`), so it is found once for many of them. Decisions
and selections are those of the cycle model, from the operands or drawn with the run's seed; no time is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.closed_form.rows import Descriptors
from topsieve_sim.energy.components import Key
from topsieve_sim.engine.attention import (
    Assumptions,
    Decisions,
    attention_actions,
    decide,
    memo_of,
    selection_actions,
    timing_group,
    value_selections,
)
from topsieve_sim.engine.program import AttentionWork, Program
from topsieve_sim.engine.selection import Selections
from topsieve_sim.engine.simulate import BATCH, cascade_selections
from topsieve_sim.engine.singles import HOST_KINDS
from topsieve_sim.errors import InputError
from topsieve_sim.report import Traffic
from topsieve_sim.timing.attention_group import AttentionGroup
from topsieve_sim.trace.groups import SingleOp
from topsieve_sim.trace.ops import Op, TopK

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class Single:
    """An operation outside attention groups, how often it stands in the trace, and its selection cycles in all."""

    index: int
    op: Op
    count: int
    selection_cycles: int


@dataclass(frozen=True)
class Facts:
    """What does not depend on a machine's speeds.

    descriptors : shapes and rows of the attention descriptors, equal ones once; `repeats` int64 [descriptors] of each.
    head_dims, keys : int64 [descriptors]. singles, host : operations on the accelerator, and those that the host may run.
    dram_bytes, actions : of all attention descriptors. query_rows, lsb_rows : of the whole trace.
    """

    descriptors: Descriptors
    repeats: Int64
    head_dims: Int64
    keys: Int64
    singles: tuple[Single, ...]
    host: tuple[Single, ...]
    dram_bytes: int
    actions: Counter[Key]
    query_rows: int
    lsb_rows: int


def facts_of(program: Program, config: AcceleratorConfig, seed: int) -> Facts:
    """The facts of `program` on all machines that decide like `config`.

    Raises
    ------
    InputError
        a descriptor does not fit the machine.
    """
    generator = np.random.default_rng(seed)
    memo = memo_of(program, config)
    places: dict[Hashable, int] = {}
    groups: list[AttentionGroup] = []
    repeats: list[int] = []
    singles: dict[Hashable, Single] = {}
    traffic: Counter[Traffic] = Counter()
    actions: Counter[Key] = Counter()
    query_rows = lsb_rows = 0
    for first in range(0, len(program.work), BATCH):
        batch = program.work[first : first + BATCH]
        work = [unit for unit in batch if isinstance(unit, AttentionWork)]
        decisions = [decide(unit, program.trace, config, memo, Assumptions()) for unit in work]
        chosen = value_selections(work, decisions, config, generator)
        # In the order of the cycle model, so that equal seeds draw equal scores.
        cascade, _ = cascade_selections(batch, program.trace, config, generator)
        for unit, decided, selection in zip(work, decisions, chosen, strict=True):
            name = (unit.shape, decided.name, selection.cycles.tobytes(), selection.flush.tobytes())
            place = places.setdefault(name, len(groups))
            if place == len(groups):
                groups.append(timing_group(unit, decided, selection, config))
                groups[-1].check(config)
                repeats.append(0)
            repeats[place] += 1
            moved = attention_bytes(groups[place], decided, config)
            traffic.update(moved)
            actions.update(_actions(unit, decided, selection, config, moved))
            query_rows += unit.heads * unit.query_key.queries
            lsb_rows += decided.lsb_rows
        for single in batch:
            if isinstance(single, SingleOp):
                _note(single, cascade.get(single.index, 0), singles)
    found = tuple(singles.values())
    return Facts(
        descriptors=_descriptors(groups, config),
        repeats=np.array(repeats, np.int64),
        head_dims=np.array([group.head_dim for group in groups], np.int64),
        keys=np.array([group.keys for group in groups], np.int64),
        singles=tuple(single for single in found if single.op.kind not in HOST_KINDS),
        host=tuple(single for single in found if single.op.kind in HOST_KINDS),
        dram_bytes=sum(traffic.values()),
        actions=actions,
        query_rows=query_rows,
        lsb_rows=lsb_rows,
    )


def attention_bytes(group: AttentionGroup, decided: Decisions, config: AcceleratorConfig) -> dict[Traffic, int]:
    """Bytes that a descriptor moves through an ideal memory: every plane and row packed, to whole bytes."""
    shape = group.shape(config)
    query_bits, key_bits, lsb_bits, value_bits, output_bits = shape[7:12]
    rows, width = group.heads * group.queries, group.head_dim
    twice = decided.lsb.reshape(group.heads, group.queries).any(axis=1).sum()
    if group.kept < group.keys and group.queries == 1:
        value = sum(_size(min(group.kept, keys) * width, value_bits) for keys in decided.row_keys.tolist())
    else:
        value = group.heads * _size(group.keys * width, value_bits)
    sizes = {
        Traffic.QUERY: rows * _size(width, query_bits),
        Traffic.KEY_MSB: group.heads * _size(group.keys * width, key_bits),
        Traffic.KEY_LSB: int(twice) * _size(group.keys * width, lsb_bits),
        Traffic.VALUE: value,
        Traffic.OUTPUT: rows * _size(width, output_bits),
    }
    return {kind: size for kind, size in sizes.items() if size}


def _size(elements: int, bits: int) -> int:
    return -(-elements * bits // 8)


def _actions(
    work: AttentionWork, decided: Decisions, selection: Selections, config: AcceleratorConfig, moved: dict[Traffic, int]
) -> Counter[Key]:
    actions: Counter[Key] = Counter(attention_actions(work, decided, config, moved))
    if work.kept < work.query_key.keys:
        actions.update(selection_actions(decided, int(selection.cycles.sum()), config))
    return actions


def _note(single: SingleOp, selection_cycles: int, singles: dict[Hashable, Single]) -> None:
    """Count an operation; equal ones outside selection differ in nothing but their place."""
    op = single.op
    name = replace(op, layer=0, sequence=0, step=0)
    before = singles.get(name, Single(single.index, op, 0, 0))
    if before.count and isinstance(op, TopK):
        # Selections of their own, the same load and filter.
        selection_cycles += before.selection_cycles
    singles[name] = Single(before.index, op, before.count + 1, selection_cycles)


def _descriptors(groups: list[AttentionGroup], config: AcceleratorConfig) -> Descriptors:
    shapes = np.array([group.shape(config)[:13] for group in groups], np.int64).reshape(len(groups), 13)
    heads, queries, keys, kept, width, _, key_bits, lsb_bits, value_bits, _, progressive = shapes.T[2:]
    rows = [group.heads * group.queries for group in groups]

    def joined(values: list[NDArray[np.int64] | int]) -> Int64:
        parts = [np.broadcast_to(value, count) for value, count in zip(values, rows, strict=True)]
        return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)

    return Descriptors(
        heads=heads.copy(),
        queries=queries.copy(),
        keys=keys.copy(),
        kept=kept.copy(),
        key_row_bits=width * key_bits,
        lsb_row_bits=width * lsb_bits,
        value_row_bits=width * value_bits,
        progressive=progressive.copy(),
        offset=np.concatenate([[0], np.cumsum(rows, dtype=np.int64)]).astype(np.int64),
        row_keys=joined([group.keys if group.row_keys is None else group.row_keys for group in groups]),
        twice=joined([np.asarray(group.lsb_flags, np.int64) for group in groups]).astype(np.bool_),
        select_cycles=joined([group.select_cycles for group in groups]),
        flush_cycles=joined([group.flush_cycles for group in groups]),
    )


def refuse(config: AcceleratorConfig) -> None:
    """Raise `InputError` for machines that have no closed form."""
    if config.memory.model != "ideal":
        raise InputError(
            "closed forms know the ideal memory only; simulate this machine to the cycle",
            field="memory.model",
            value=str(config.memory.model),
            allowed="ideal",
        )
    others = [name for name in config.successor.features if name != "buffered_heads"]
    if others:
        raise InputError(
            "closed forms do not know this feature; simulate this machine to the cycle",
            field=f"successor.{others[0]}",
            value=getattr(config.successor, others[0]),
        )
