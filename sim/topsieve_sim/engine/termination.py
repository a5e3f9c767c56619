"""Decoding descriptors on a machine that ends keys early: candidates, exact times, bytes and actions.

A descriptor with one query a query head takes this way where its data says which keys matter: operands, or the count of
kept values of a trace without them. Every other descriptor takes the way of `topsieve_sim.engine.attention`, without local
value selection: such a machine has no top-k engine for values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig, MemoryModel
from topsieve_sim.closed_loop.commands import TokenPlaces
from topsieve_sim.energy import Action, Component
from topsieve_sim.engine.attention import ATTENTION_TRAFFIC, ATTENTION_UNITS, memory_actions
from topsieve_sim.engine.closed_loop import MemoryCosts, closed_loop_times, stored_tokens, token_places
from topsieve_sim.engine.ledger import Actions, Cost, UnitCycles
from topsieve_sim.engine.program import AttentionWork
from topsieve_sim.engine.singles import at_operation
from topsieve_sim.errors import InputError
from topsieve_sim.golden.attention import quantise_operands
from topsieve_sim.golden.early_termination import terminated_attention
from topsieve_sim.report import Traffic, Unit
from topsieve_sim.timing.termination import terminated_times
from topsieve_sim.timing.termination_group import TerminationGroup, partial_rows, tile_counts
from topsieve_sim.trace import AttentionGroup, Trace


@dataclass(frozen=True)
class Termination:
    """What the bounds decided for one descriptor.

    name : equal for equal content. candidates : int64 [kv_heads, tiles]. whole : bool [kv_heads]. rows : query rows of a
    key-value head. places : each head's candidates, positions among its keys.
    """

    name: Hashable
    candidates: NDArray[np.int64]
    whole: NDArray[np.bool_]
    rows: int
    places: tuple[NDArray[np.int64], ...]

    @property
    def lsb_rows(self) -> int:
        """Rows whose candidates are computed with both planes."""
        return int(self.whole.sum()) * self.rows


Memo = dict[Hashable, Termination]


def key_planes(work: AttentionWork, config: AcceleratorConfig) -> tuple[int, int]:
    """Bits of the planes that keys are stored in: the operation's, or the machine's for keys of one plane as wide as its own."""
    op, formats = work.query_key, config.formats
    if op.key_lsb_bits == 0 and op.key_msb_bits == formats.key_bits:
        return formats.key_msb_bits, formats.key_lsb_bits
    return op.key_msb_bits, op.key_lsb_bits


def terminates(work: AttentionWork, trace: Trace, config: AcceleratorConfig) -> bool:
    """Whether keys of this descriptor end early."""
    op = work.query_key
    known = (work.groups[0].start, "query") in trace.operands or work.kept < op.keys
    rows = work.rows_per_kv_head
    wanted = config.successor.terminates and op.queries == 1 and rows <= config.successor.termination_rows
    return wanted and known and op.keys <= config.capacity and rows <= partial_rows(config, op.keys)


def without_selection(work: AttentionWork) -> AttentionWork:
    """The descriptor with all its values."""
    keys = work.query_key.keys
    if work.kept == keys:
        return work
    groups = (
        replace(group, probability_value=replace(group.probability_value, kept=keys), value_topk=None)
        for group in work.groups
    )
    return AttentionWork(tuple(groups))


def terminate(work: AttentionWork, trace: Trace, config: AcceleratorConfig, memo: Memo) -> Termination:
    """Candidates of a descriptor; `memo` keeps those of equal content.

    Without operands, each row has as many candidates as the trace keeps values, rows that share a head drawn independently of
    each other, spread evenly; the trace's `lsb_rows` say which heads need their second plane; keys of one plane need it
    always.
    """
    parts = [_part(group, work, trace, config, memo) for group in work.groups]
    return Termination(
        tuple(part.name for part in parts),
        np.concatenate([part.candidates for part in parts]),
        np.concatenate([part.whole for part in parts]),
        work.rows_per_kv_head,
        tuple(place for part in parts for place in part.places),
    )


def _part(
    group: AttentionGroup, work: AttentionWork, trace: Trace, config: AcceleratorConfig, memo: Memo
) -> Termination:
    op, kept = group.query_key, group.probability_value.kept
    decides = op.threshold > 0 or op.lsb_rows > 0
    lsb_bits = key_planes(work, config)[1]
    operands = [trace.operands.get((group.start, name)) for name in ("query", "key", "bias")]
    operands.append(trace.operands.get((group.stop - 1, "value")))
    digest = hashlib.blake2b(repr((op.threshold, op.lsb_rows, lsb_bits, kept, op.keys, op.kv_heads)).encode())
    for operand in operands:
        digest.update(b"" if operand is None else np.ascontiguousarray(operand).data)
    name = digest.digest()
    if name in memo:
        return memo[name]
    query, key, bias, value = operands
    if query is not None and key is not None and value is not None:
        result = terminated_attention(
            quantise_operands(query, key, value, config.formats, bias), config, op.threshold if decides else 0.0
        )
        candidates, whole = result.candidates, result.whole & (lsb_bits > 0)
    else:
        candidates = np.zeros((op.kv_heads, op.keys), np.bool_)
        wanted = round(op.keys * (1 - (1 - kept / op.keys) ** work.rows_per_kv_head))
        candidates[:, np.arange(wanted) * op.keys // wanted] = True
        whole = np.full(op.kv_heads, lsb_bits > 0)
        if decides:
            whole = np.arange(op.kv_heads) < op.lsb_rows
    chosen = tuple(np.flatnonzero(head) for head in candidates)
    memo[name] = Termination(name, tile_counts(candidates, config), whole, work.rows_per_kv_head, chosen)
    return memo[name]


def termination_costs(
    work: list[AttentionWork],
    decided: list[Termination],
    config: AcceleratorConfig,
    tokens: Mapping[tuple[int, int], int],
) -> list[Cost]:
    """Exact cost of every descriptor, each from an empty machine. Equal descriptors are timed once.

    `tokens` in memory, by (sequence, step), is for the DRAM model.

    Raises
    ------
    InputError
        a descriptor does not fit the machine.
    """
    in_loop = config.memory.model is MemoryModel.DRAM
    timed: dict[Hashable, int] = {}
    places: list[int] = []
    groups: list[TerminationGroup] = []
    memory_places: list[TokenPlaces] = []
    for unit, found in zip(work, decided, strict=True):
        op = unit.query_key
        stored = stored_tokens(unit, config, tokens) if in_loop else 0
        place = timed.setdefault((unit.shape, found.name, stored), len(groups))
        if place == len(groups):
            groups.append(_timing_group(unit, found, config))
            with at_operation(unit.groups[0].start, op):
                groups[-1].check(config)
            if in_loop:
                memory_places.append(token_places(unit, stored, found.places))
        places.append(place)
    memory: MemoryCosts | None = None
    if in_loop and groups:
        times, memory = closed_loop_times(config, groups, memory_places)
    else:
        times = terminated_times(config, groups)
    costs = []
    for unit, found, place in zip(work, decided, places, strict=True):
        sizes = zip(ATTENTION_TRAFFIC, times.dram_bytes[place].tolist(), strict=True)
        traffic = {kind: size for kind, size in sizes if size}
        cycles, table = int(times.cycles[place]), times.unit_cycles[place].tolist()
        units = {name: UnitCycles(*row) for name, row in zip(ATTENTION_UNITS, table, strict=True)}
        if unit.groups[0].column_sum is not None:
            summed = units[Unit.SOFTMAX_NORMALISE].busy
            units[Unit.IMPORTANCE] = UnitCycles(summed, input=cycles - summed)
        actions: tuple[Actions, ...] = (_actions(unit, found, config, traffic),)
        if memory is not None:
            moved = memory.moved_bytes[place].tolist()
            traffic = {kind: size for kind, size in zip(ATTENTION_TRAFFIC, moved, strict=True) if size}
            actions += (memory_actions(actions[0], sum(moved), int(memory.activates[place])),)
        costs.append(Cost(cycles, units, traffic, actions))
    return costs


def _timing_group(work: AttentionWork, found: Termination, config: AcceleratorConfig) -> TerminationGroup:
    op = work.query_key
    msb_bits, lsb_bits = key_planes(work, config)
    return TerminationGroup(
        heads=work.kv_heads,
        queries=work.rows_per_kv_head,
        keys=op.keys,
        head_dim=op.head_dim,
        candidates=found.candidates,
        whole=found.whole,
        query_bits=op.query_bits,
        key_msb_bits=msb_bits,
        key_lsb_bits=lsb_bits,
        value_bits=work.groups[0].probability_value.value_bits,
    )


def _actions(
    work: AttentionWork, found: Termination, config: AcceleratorConfig, traffic: dict[Traffic, int]
) -> dict[tuple[Component, Action], int]:
    """Energy events of one descriptor. The bound and the store of first-pass sums are parts of the softmax."""
    op, formats = work.query_key, config.formats
    group = work.groups[0]
    rows = work.kv_heads * work.rows_per_kv_head
    msb_bits, lsb_bits = key_planes(work, config)
    msb_bits = min(msb_bits, formats.key_bits)
    lsb_bits = min(lsb_bits, formats.key_bits - msb_bits)
    value_bits = min(group.probability_value.value_bits, formats.value_bits)
    per_head = found.candidates.sum(axis=1)
    bounded = rows * op.keys
    finished = int(per_head.sum()) * work.rows_per_kv_head
    refined = int(per_head[found.whole].sum()) * work.rows_per_kv_head
    products = (bounded + refined) * op.head_dim
    sum_bits = formats.dot_product_bits(config.max_head_dim)
    entry_bits = formats.score_bits + formats.exponential_bits
    read_bits = 8 * sum(size for kind, size in traffic.items() if kind is not Traffic.OUTPUT)
    actions = {
        (Component.DRAM, Action.READ_BIT): read_bits,
        (Component.DRAM, Action.WRITE_BIT): 8 * traffic.get(Traffic.OUTPUT, 0),
        (Component.FETCHER, Action.TRANSFER_BIT): read_bits,
        (Component.KEY_BUFFER, Action.WRITE_BIT): op.head_dim
        * (work.kv_heads * op.keys * msb_bits + int(per_head[found.whole].sum()) * lsb_bits),
        (Component.KEY_BUFFER, Action.READ_BIT): op.head_dim * (bounded * msb_bits + refined * lsb_bits),
        (Component.DOT_PRODUCT, Action.MULTIPLY): products,
        (Component.DOT_PRODUCT, Action.ADD): products + finished,
        (Component.DOT_PRODUCT, Action.SCALE): bounded + finished,
        (Component.SOFTMAX, Action.COMPARE): 2 * bounded + finished,
        (Component.SOFTMAX, Action.EXPONENTIAL): bounded + finished,
        (Component.SOFTMAX, Action.ADD): bounded + finished,
        (Component.SOFTMAX, Action.RECIPROCAL): rows,
        (Component.SOFTMAX, Action.NORMALISE): finished,
        (Component.SOFTMAX, Action.WRITE_BIT): bounded * sum_bits + finished * entry_bits,
        (Component.SOFTMAX, Action.READ_BIT): bounded * sum_bits + finished * entry_bits,
        (Component.VALUE_BUFFER, Action.WRITE_BIT): int(per_head.sum()) * op.head_dim * value_bits,
        (Component.VALUE_BUFFER, Action.READ_BIT): finished * op.head_dim * value_bits,
        (Component.WEIGHTED_SUM, Action.MULTIPLY): finished * op.head_dim,
        (Component.WEIGHTED_SUM, Action.ADD): finished * op.head_dim,
    }
    accumulated = finished if group.column_sum is not None else 0
    if group.row_pick is not None:
        accumulated += work.heads * group.row_pick.rows * op.keys
    if accumulated:
        actions[Component.IMPORTANCE, Action.READ_BIT] = accumulated * formats.token_importance_bits
        actions[Component.IMPORTANCE, Action.WRITE_BIT] = accumulated * formats.token_importance_bits
    outputs = work.heads * op.head_dim if group.head_sum is not None else 0
    if accumulated + outputs:
        actions[Component.IMPORTANCE, Action.ADD] = accumulated + outputs
    return actions


def told_by_rows(work: AttentionWork, trace: Trace, config: AcceleratorConfig) -> AttentionWork:
    """The descriptor as such a machine runs it, where its rows can be told one by one.

    Raises
    ------
    InputError
        its keys end early.
    """
    if terminates(work, trace, config):
        raise InputError(
            "rows whose keys end early are not told one by one",
            source=config.name,
            field="successor.termination_threshold",
            value=config.successor.termination_threshold,
            allowed="0",
        )
    return without_selection(work) if config.successor.terminates else work
