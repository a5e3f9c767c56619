"""Attention descriptors on the machine: what the data decides, exact times, bytes and actions."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig, MemoryModel
from topsieve_sim.closed_loop.loop import TokenPlaces
from topsieve_sim.energy import Action, Component
from topsieve_sim.engine.closed_loop import MemoryCosts, closed_loop_times, token_places
from topsieve_sim.engine.ledger import Actions, Cost, UnitCycles
from topsieve_sim.engine.program import AttentionWork, Program
from topsieve_sim.engine.selection import Selections, drawn_selections, joined, selections
from topsieve_sim.engine.singles import at_operation
from topsieve_sim.errors import InputError
from topsieve_sim.golden.attention import kept_mask, machine_attention, quantise_operands
from topsieve_sim.golden.progressive import integer_threshold
from topsieve_sim.report import Traffic, Unit
from topsieve_sim.timing import attention as timing
from topsieve_sim.timing.operand_layout import packed_layout
from topsieve_sim.trace import AttentionGroup, Trace
from topsieve_sim.trace.ops import QueryKey

# The units and bytes of `timing.UNIT_NAMES` and `timing.BYTE_KIND_NAMES`, in their order. The causes of
# `timing.CAUSE_NAMES` are the fields of `UnitCycles`.
ATTENTION_UNITS = (
    Unit.MEMORY,
    Unit.DOT_PRODUCT,
    Unit.SOFTMAX_FILL,
    Unit.SOFTMAX_EXPONENTIAL,
    Unit.SOFTMAX_NORMALISE,
    Unit.VALUE_TOPK,
    Unit.WEIGHTED_SUM,
)
ATTENTION_TRAFFIC = tuple(Traffic(name) for name in timing.BYTE_KIND_NAMES)


@dataclass(frozen=True)
class Decisions:
    """What the data (or the trace) decided for one descriptor.

    name : equal for equal content. row_keys : int64 [rows], keys of each row. lsb : bool [rows], rows that are computed
    twice. selection : of the local values, or None where nothing is selected or scores are to be drawn. survivors : int64
    [rows, kept], positions of the kept values where one query a head gathers them and data decides; else None.
    """

    name: Hashable
    row_keys: NDArray[np.int64]
    lsb: NDArray[np.bool_]
    selection: Selections | None
    survivors: NDArray[np.int64] | None = None

    @cached_property
    def keys(self) -> int:
        """Keys of all rows."""
        return int(self.row_keys.sum())

    @cached_property
    def lsb_rows(self) -> int:
        """Rows that are computed twice."""
        return int(self.lsb.sum())

    @cached_property
    def lsb_keys(self) -> int:
        """Keys of the rows that are computed twice."""
        return int(self.row_keys[self.lsb].sum())


Memo = dict[Hashable, Decisions]

# Fields of a configuration that decide no second pass, no survivor and no selection: machines that differ in nothing else
# share decisions.
_UNDECISIVE = (
    "name",
    "clock_mhz",
    "double_buffer",
    "dot_product",
    "weighted_sum",
    "softmax",
    "importance",
    "technology",
)
_DECIDED_MACHINES = 4


def decisive(config: AcceleratorConfig) -> str:
    """Equal for machines on which the data decides alike."""
    data = config.model_dump(mode="json", exclude=set(_UNDECISIVE))
    return repr(data | {"memory": config.memory.model.value})


def memo_of(program: Program, config: AcceleratorConfig) -> Memo:
    """What `program` has decided on machines like `config` before; a few such machines are remembered."""
    name = decisive(config)
    memo: Memo | None = program.decided.pop(name, None)
    while memo is None and len(program.decided) >= _DECIDED_MACHINES:
        program.decided.pop(next(iter(program.decided)))
    memo = {} if memo is None else memo
    program.decided[name] = memo
    return memo


class Assumptions:
    """Which notes a report needs; each is set where its assumption was made."""

    def __init__(self) -> None:
        self.drawn_values = False
        self.no_second_pass = False
        self.wide_operands = False


def decide(work: AttentionWork, trace: Trace, config: AcceleratorConfig, memo: Memo, assumed: Assumptions) -> Decisions:
    """Rows, second passes and probabilities of a descriptor; `memo` keeps those of equal content."""
    op = work.query_key
    progressive = _progressive(work, config)
    selects = work.kept < op.keys
    if (progressive or selects) and (work.groups[0].start, "query") in trace.operands:
        parts = [_computed(group, progressive, trace, config, memo) for group in work.groups]
        if len(parts) == 1:
            return parts[0]
        return Decisions(
            tuple(part.name for part in parts),
            np.concatenate([part.row_keys for part in parts]),
            np.concatenate([part.lsb for part in parts]),
            joined([part.selection for part in parts if part.selection is not None]) if selects else None,
            np.concatenate([part.survivors for part in parts if part.survivors is not None])
            if parts[0].survivors is not None
            else None,
        )
    assumed.no_second_pass |= progressive and op.lsb_rows < 0
    assumed.drawn_values |= selects
    lsb_rows = tuple(group.query_key.lsb_rows for group in work.groups) if progressive else ()
    name = (len(work.groups), op.heads, op.kv_heads, op.queries, op.keys, op.causal, lsb_rows)
    if name not in memo:
        row_keys = np.tile(_row_keys(op), len(work.groups))
        lsb = np.zeros(row_keys.size, np.bool_)
        if any(count > 0 for count in lsb_rows):
            lsb = np.concatenate([_given_lsb_rows(count, work) for count in lsb_rows])
        memo[name] = Decisions(name, row_keys, lsb, None)
    return memo[name]


def _row_keys(op: QueryKey) -> NDArray[np.int64]:
    """Keys of each row of one group: all, or those up to the row's own position."""
    row_keys = np.full(op.queries, op.keys, np.int64)
    if op.causal:
        row_keys = np.maximum(op.keys - op.queries + 1 + np.arange(op.queries), 1)
    return np.tile(row_keys, op.heads)


def _progressive(work: AttentionWork, config: AcceleratorConfig) -> bool:
    op = work.query_key
    wanted = op.threshold > 0 or op.lsb_rows > 0 or any(group.query_key.lsb_rows > 0 for group in work.groups)
    return config.progressive.enabled and op.key_lsb_bits > 0 and wanted


def _given_lsb_rows(count: int, work: AttentionWork) -> NDArray[np.bool_]:
    """`count` rows of one group spread over its key-value heads, a row a head before the second of any."""
    flags = np.zeros((work.rows_per_kv_head, work.query_key.kv_heads), np.bool_)
    flags.reshape(-1)[: max(count, 0)] = True
    return flags.T.reshape(-1)


def _computed(
    group: AttentionGroup, progressive: bool, trace: Trace, config: AcceleratorConfig, memo: Memo
) -> Decisions:
    """What the golden model decides for one group."""
    place = ("group", group.start, progressive)
    if place in memo:
        return memo[place]
    op = group.query_key
    kept = group.probability_value.kept
    operands = [trace.operands.get((group.start, name)) for name in ("query", "key", "bias")]
    operands.append(trace.operands[group.stop - 1, "value"])
    digest = hashlib.blake2b(repr((progressive, op.threshold, op.causal, kept)).encode(), digest_size=16)
    for operand in operands:
        digest.update(repr(operand if operand is None else operand.shape).encode())
        digest.update(b"" if operand is None else np.ascontiguousarray(operand).data)
    name = digest.digest()
    if name in memo:
        return memo.setdefault(place, memo[name])
    query, key, bias, value = operands
    assert query is not None
    assert key is not None
    assert value is not None
    threshold = integer_threshold(op.threshold, config.formats) if progressive else 0
    rows = op.heads * op.queries
    row_keys = _row_keys(op)
    seen = np.arange(op.keys) < row_keys[:, None]
    result = machine_attention(
        quantise_operands(query, key, value, config.formats, bias),
        config,
        threshold,
        valid=seen.reshape(op.heads, op.queries, op.keys) if op.causal else None,
    )
    selection = survivors = None
    if kept < op.keys:
        # Query heads that share a key-value head are neighbours: [heads, queries] is already in the order of the rows.
        scores = result.probability.reshape(rows, op.keys)[seen]
        selection = selections(config, row_keys, np.full(rows, kept), scores, config.formats.probability_bits)
        if op.queries * op.heads == op.kv_heads:
            survivors = np.nonzero(kept_mask(result.probability.reshape(rows, op.keys), kept))[1].reshape(rows, kept)
    memo[name] = memo[place] = Decisions(name, row_keys, result.lsb_rows.reshape(-1), selection, survivors)
    return memo[name]


def attention_costs(
    work: list[AttentionWork],
    decisions: list[Decisions],
    config: AcceleratorConfig,
    generator: np.random.Generator,
    tokens: Mapping[tuple[int, int], int],
) -> list[Cost]:
    """Exact cost of every descriptor, each from an empty machine. Equal descriptors are timed once.

    `tokens` in memory, by (sequence, step), is for the DRAM model.

    Raises
    ------
    InputError
        a descriptor does not fit the machine.
    """
    select = value_selections(work, decisions, config, generator)
    in_loop = config.memory.model is MemoryModel.DRAM
    timed: dict[Hashable, int] = {}
    places: list[int] = []
    groups: list[timing.AttentionGroup] = []
    memory_places: list[TokenPlaces] = []
    for descriptor, decided, chosen in zip(work, decisions, select, strict=True):
        op = descriptor.query_key
        stored = tokens[op.sequence, op.step] if in_loop else 0
        if in_loop and config.successor.evict:
            # Evicted tokens leave their places to newer ones: what is live stands side by side.
            stored = op.keys
        name = (descriptor.shape, decided.name, chosen.cycles.tobytes(), chosen.flush.tobytes(), stored)
        place = timed.setdefault(name, len(groups))
        if place == len(groups):
            groups.append(timing_group(descriptor, decided, chosen, config))
            if in_loop:
                memory_places.append(token_places(descriptor, stored, decided.survivors))
        places.append(place)
    memory: MemoryCosts | None = None
    try:
        if in_loop and groups:
            times, memory = closed_loop_times(config, groups, memory_places)
        else:
            times = timing.attention_times(config, groups)
    except InputError:
        for descriptor, place in zip(work, places, strict=True):
            with at_operation(descriptor.groups[0].start, descriptor.query_key):
                groups[place].check(config)
        raise
    known: dict[Hashable, dict[tuple[Component, Action], int]] = {}
    costs = []
    for descriptor, decided, chosen, place in zip(work, decisions, select, places, strict=True):
        sizes = zip(ATTENTION_TRAFFIC, times.dram_bytes[place].tolist(), strict=True)
        traffic = {kind: size for kind, size in sizes if size}
        content = (descriptor.shape, decided.name)
        if content not in known:
            known[content] = attention_actions(descriptor, decided, config, traffic)
        actions: tuple[Actions, ...] = (known[content],)
        if memory is not None:
            moved = memory.moved_bytes[place].tolist()
            traffic = {kind: size for kind, size in zip(ATTENTION_TRAFFIC, moved, strict=True) if size}
            actions += (memory_actions(known[content], sum(moved), int(memory.activates[place])),)
        if descriptor.kept < descriptor.query_key.keys:
            actions += (selection_actions(decided, int(chosen.cycles.sum()), config),)
        units = _unit_cycles(descriptor, decided, int(times.cycles[place]), times.unit_cycles[place].tolist())
        costs.append(Cost(int(times.cycles[place]), units, traffic, actions))
    return costs


NO_SELECTION = Selections(np.zeros(0, np.int64), np.zeros(0, np.int64))


def value_selections(
    work: list[AttentionWork], decisions: list[Decisions], config: AcceleratorConfig, generator: np.random.Generator
) -> list[Selections]:
    """Local value selection of every descriptor; without rows where all values are kept."""
    result = [decided.selection or NO_SELECTION for decided in decisions]
    drawn = [
        number
        for number, (descriptor, decided) in enumerate(zip(work, decisions, strict=True))
        if descriptor.kept < descriptor.query_key.keys and decided.selection is None
    ]
    sizes, counts = [decisions[number].row_keys for number in drawn], [work[number].kept for number in drawn]
    found = drawn_selections(config, sizes, counts, config.formats.probability_bits, generator)
    for number, chosen in zip(drawn, found, strict=True):
        result[number] = chosen
    return result


def timing_group(
    work: AttentionWork, decided: Decisions, chosen: Selections, config: AcceleratorConfig
) -> timing.AttentionGroup:
    op = work.query_key
    # Without a progressive decision both planes are fetched at once.
    static = 0 if _progressive(work, config) else op.key_lsb_bits
    layout = None
    if config.memory.has_fetchers:
        rows = work.kv_heads * work.rows_per_kv_head
        layout = packed_layout(config, work.kv_heads, rows, op.keys, op.head_dim, decided.survivors)
    return timing.AttentionGroup(
        heads=work.kv_heads,
        queries=work.rows_per_kv_head,
        keys=op.keys,
        kept=work.kept,
        head_dim=op.head_dim,
        lsb_flags=decided.lsb,
        select_cycles=chosen.cycles if chosen.cycles.size else 0,
        flush_cycles=chosen.flush if chosen.flush.size else 0,
        row_keys=decided.row_keys if op.causal else None,
        progressive=_progressive(work, config),
        query_bits=op.query_bits,
        key_msb_bits=op.key_msb_bits + static,
        key_lsb_bits=op.key_lsb_bits - static,
        value_bits=work.groups[0].probability_value.value_bits,
        layout=layout,
    )


def _unit_cycles(
    work: AttentionWork, decided: Decisions, cycles: int, table: list[list[int]]
) -> dict[Unit, UnitCycles]:
    units: dict[Unit, UnitCycles] = {}
    for unit, row in zip(ATTENTION_UNITS, table, strict=True):
        if unit is not Unit.VALUE_TOPK or work.kept < work.query_key.keys:
            units[unit] = UnitCycles(*row)
    if work.groups[0].column_sum is not None:
        # The accumulators take the probability beats as they pass; a discarded row is one beat that is none.
        summed = units[Unit.SOFTMAX_NORMALISE].busy - decided.lsb_rows
        units[Unit.IMPORTANCE] = UnitCycles(summed, input=cycles - summed)
    return units


def attention_actions(
    work: AttentionWork, decided: Decisions, config: AcceleratorConfig, traffic: dict[Traffic, int]
) -> dict[tuple[Component, Action], int]:
    """Energy events of one descriptor; a discarded first pass costs scores and exponentials again."""
    op, formats = work.query_key, config.formats
    group = work.groups[0]
    rows = decided.row_keys.size
    final, repeated = decided.keys, decided.lsb_keys
    started_rows = rows + decided.lsb_rows
    scored = final + repeated
    kept = int(np.minimum(decided.row_keys, work.kept).sum())
    progressive = _progressive(work, config)
    # An operand wider than the datapath is narrowed on its way into the buffer; behind fetchers all have its widths.
    stored_msb, stored_lsb, stored_value = op.key_msb_bits, op.key_lsb_bits, group.probability_value.value_bits
    if config.memory.has_fetchers:
        stored_msb, stored_lsb, stored_value = formats.key_msb_bits, formats.key_lsb_bits, formats.value_bits
    msb_bits = min(stored_msb, formats.key_bits)
    key_bits = min(stored_msb + stored_lsb, formats.key_bits)
    first_bits = msb_bits if progressive else key_bits
    value_bits = min(stored_value, formats.value_bits)
    value_rows = 8 * traffic.get(Traffic.VALUE, 0) // stored_value
    lsb_elements = 8 * traffic.get(Traffic.KEY_LSB, 0) // max(stored_lsb, 1) if progressive else 0
    read_bits = 8 * sum(size for kind, size in traffic.items() if kind is not Traffic.OUTPUT)
    actions = {
        (Component.DRAM, Action.READ_BIT): read_bits,
        (Component.DRAM, Action.WRITE_BIT): 8 * traffic.get(Traffic.OUTPUT, 0),
        (Component.FETCHER, Action.TRANSFER_BIT): read_bits,
        (Component.KEY_BUFFER, Action.WRITE_BIT): work.kv_heads * op.keys * op.head_dim * first_bits
        + lsb_elements * (key_bits - msb_bits),
        (Component.KEY_BUFFER, Action.READ_BIT): op.head_dim * ((scored - repeated) * first_bits + repeated * key_bits),
        (Component.DOT_PRODUCT, Action.MULTIPLY): scored * op.head_dim,
        (Component.DOT_PRODUCT, Action.ADD): scored * op.head_dim,
        (Component.DOT_PRODUCT, Action.SCALE): scored,
        (Component.SOFTMAX, Action.COMPARE): scored,
        (Component.SOFTMAX, Action.EXPONENTIAL): scored,
        (Component.SOFTMAX, Action.ADD): scored,
        (Component.SOFTMAX, Action.RECIPROCAL): started_rows,
        (Component.SOFTMAX, Action.NORMALISE): final,
        (Component.SOFTMAX, Action.WRITE_BIT): scored * (formats.score_bits + formats.exponential_bits),
        (Component.SOFTMAX, Action.READ_BIT): scored * formats.score_bits + final * formats.exponential_bits,
        (Component.VALUE_BUFFER, Action.WRITE_BIT): value_rows * value_bits,
        (Component.VALUE_BUFFER, Action.READ_BIT): kept * op.head_dim * value_bits,
        (Component.WEIGHTED_SUM, Action.MULTIPLY): kept * op.head_dim,
        (Component.WEIGHTED_SUM, Action.ADD): kept * op.head_dim,
    }
    accumulated = final if group.column_sum is not None else 0
    if group.row_pick is not None:
        accumulated += work.heads * group.row_pick.rows * op.keys
    if accumulated:
        actions[Component.IMPORTANCE, Action.READ_BIT] = accumulated * formats.token_importance_bits
        actions[Component.IMPORTANCE, Action.WRITE_BIT] = accumulated * formats.token_importance_bits
    outputs = work.heads * op.queries * op.head_dim if group.head_sum is not None else 0
    if accumulated + outputs:
        actions[Component.IMPORTANCE, Action.ADD] = accumulated + outputs
    return actions


def memory_actions(useful: Actions, moved_bytes: int, activates: int) -> dict[tuple[Component, Action], int]:
    """Whole accesses and row activations, in place of the average per useful bit."""
    return {
        **{key: -useful[key] for key in ((Component.DRAM, Action.READ_BIT), (Component.DRAM, Action.WRITE_BIT))},
        (Component.DRAM, Action.TRANSFER_BIT): 8 * moved_bytes,
        (Component.DRAM, Action.ACTIVATE): activates,
    }


def selection_actions(
    decided: Decisions, select_cycles_total: int, config: AcceleratorConfig
) -> dict[tuple[Component, Action], int]:
    """The local top-k engine: each busy cycle of the selector passes a row of its lanes, the filter passes all again."""
    bits = config.formats.probability_bits
    passed = select_cycles_total * config.topk.parallelism + decided.keys
    return {
        (Component.VALUE_TOPK, Action.WRITE_BIT): (passed + decided.keys) * bits,
        (Component.VALUE_TOPK, Action.READ_BIT): passed * bits,
        (Component.VALUE_TOPK, Action.COMPARE): 2 * passed,
    }
