"""Attention descriptors on the machine: what the data decides, exact times, bytes and actions."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig, MemoryModel
from topsieve_sim.arch.formats import NumberFormats
from topsieve_sim.closed_loop.commands import TokenPlaces
from topsieve_sim.energy import Action, Component
from topsieve_sim.engine.closed_loop import MemoryCosts, closed_loop_times, stored_tokens, token_places
from topsieve_sim.engine.ledger import Actions, Cost, UnitCycles
from topsieve_sim.engine.program import AttentionWork, Program
from topsieve_sim.engine.selection import Selections, drawn_selections, selections
from topsieve_sim.engine.singles import at_operation
from topsieve_sim.errors import InputError
from topsieve_sim.golden.attention import (
    attention_probabilities,
    kept_mask,
    quantise_score_operands,
    require_capacity,
)
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


# `Attended` of groups, `Decisions`, and the selections that were last made of each, by what they depend on.
Memo = dict[Hashable, Any]

# Widths that no probability depends on.
_AFTER_PROBABILITIES = {"value_bits", "output_bits", "token_importance_bits", "head_importance_bits"}
_DECIDED_MACHINES = 4


def attending(program: Program, config: AcceleratorConfig) -> Hashable:
    """Equal for machines on which the data gives equal probabilities and second passes."""
    if not program.trace.operands:
        return (config.capacity, config.progressive.enabled)
    formats = config.formats.model_dump(exclude=_AFTER_PROBABILITIES)
    return (config.capacity, config.progressive.enabled, *formats.values())


def memo_of(program: Program, config: AcceleratorConfig) -> Memo:
    """What `program` has decided on machines like `config` before; a few such machines are remembered."""
    name = attending(program, config)
    memo: Memo | None = program.decided.pop(name, None)
    while memo is None and len(program.decided) >= _DECIDED_MACHINES:
        program.decided.pop(next(iter(program.decided)))
    memo = {_DIGESTS: program.digests} if memo is None else memo
    program.decided[name] = memo
    return memo


_DIGESTS = "digests"


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
    attended = attend(work, trace, config, memo)
    if attended is not None:
        return _selected(attended, work.kept, config, memo)
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
    return cast("Decisions", memo[name])


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


@dataclass(frozen=True)
class Attended:
    """What the operands of a descriptor decide, whatever the top-k engine.

    scores : uint16 [sum of row_keys], probabilities of the rows one after the other, or None where nothing is selected.
    The others are as in `Decisions`.
    """

    name: Hashable
    row_keys: NDArray[np.int64]
    lsb: NDArray[np.bool_]
    scores: NDArray[np.uint16] | None
    survivors: NDArray[np.int64] | None


def attend(work: AttentionWork, trace: Trace, config: AcceleratorConfig, memo: Memo) -> Attended | None:
    """What the golden model finds for a descriptor, or None where no decision asks for it or operands are missing."""
    progressive = _progressive(work, config)
    if not (progressive or work.kept < work.query_key.keys) or (work.groups[0].start, "query") not in trace.operands:
        return None
    parts = [_attended(group, progressive, trace, config, memo) for group in work.groups]
    if len(parts) == 1:
        return parts[0]
    name = tuple(part.name for part in parts)
    if name not in memo:
        scores = [part.scores for part in parts if part.scores is not None]
        survivors = [part.survivors for part in parts if part.survivors is not None]
        memo[name] = Attended(
            name,
            np.concatenate([part.row_keys for part in parts]),
            np.concatenate([part.lsb for part in parts]),
            np.concatenate(scores) if scores else None,
            np.concatenate(survivors) if survivors else None,
        )
    return cast("Attended", memo[name])


def _selected(attended: Attended, kept: int, config: AcceleratorConfig, memo: Memo) -> Decisions:
    """With the times of the machine's own top-k engine; those of the last engine are remembered."""
    place = ("selected", attended.name)
    engine, decisions = memo.get(place, (None, None))
    if decisions is None or (attended.scores is not None and engine != config.topk):
        selection = None
        if attended.scores is not None:
            counts = np.full(attended.row_keys.size, kept)
            scores = attended.scores.astype(np.int64)
            selection = selections(config, attended.row_keys, counts, scores, config.formats.probability_bits)
        decisions = Decisions(attended.name, attended.row_keys, attended.lsb, selection, attended.survivors)
        memo[place] = (config.topk, decisions)
    return cast("Decisions", decisions)


def _attended(
    group: AttentionGroup, progressive: bool, trace: Trace, config: AcceleratorConfig, memo: Memo
) -> Attended:
    op, kept = group.query_key, group.probability_value.kept
    place = ("group", group.start, progressive, kept)
    if place in memo:
        return cast("Attended", memo[place])
    name = _digest(group, progressive, trace, memo)
    if name in memo:
        return cast("Attended", memo.setdefault(place, memo[name]))
    require_capacity(op.keys, config)
    rows = op.heads * op.queries
    row_keys = _row_keys(op)
    seen = np.arange(op.keys) < row_keys[:, None]
    query, key, bias = (trace.operands.get((group.start, operand)) for operand in ("query", "key", "bias"))
    assert query is not None
    assert key is not None
    probability, lsb_rows = attention_probabilities(
        quantise_score_operands(query, key, config.formats, bias),
        config.formats,
        config.capacity,
        integer_threshold(op.threshold, config.formats) if progressive else 0,
        valid=seen.reshape(op.heads, op.queries, op.keys) if op.causal else None,
    )
    scores = survivors = None
    if kept < op.keys:
        # Query heads that share a key-value head are neighbours: [heads, queries] is already in the order of the rows.
        probability = probability.reshape(rows, op.keys)
        scores = probability[seen].astype(np.uint16)
        if op.queries * op.heads == op.kv_heads:
            survivors = np.nonzero(kept_mask(probability, kept))[1].reshape(rows, kept)
    memo[name] = memo[place] = Attended(name, row_keys, lsb_rows.reshape(-1), scores, survivors)
    return cast("Attended", memo[name])


def _digest(group: AttentionGroup, progressive: bool, trace: Trace, memo: Memo) -> bytes:
    """Equal for groups of equal shape and content."""
    op, kept = group.query_key, group.probability_value.kept
    digests: dict[Hashable, bytes] = memo.setdefault(_DIGESTS, {})
    place = (group.start, progressive, kept)
    if place not in digests:
        found = hashlib.blake2b(repr((progressive, op.threshold, op.causal, kept)).encode(), digest_size=16)
        for name in ("query", "key", "bias"):
            operand = trace.operands.get((group.start, name))
            found.update(repr(operand if operand is None else operand.shape).encode())
            found.update(b"" if operand is None else np.ascontiguousarray(operand).data)
        found.update(repr((op.kv_heads, op.heads)).encode())
        digests[place] = found.digest()
    return digests[place]


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
        stored = stored_tokens(descriptor, config, tokens) if in_loop else 0
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
            actions += (selection_actions(decided.keys, int(chosen.cycles.sum()), config),)
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


class StoredWidths(NamedTuple):
    """Bits of an element as it comes from memory, and whether first passes see the MSB plane alone."""

    key_msb: int
    key_lsb: int
    value: int
    progressive: bool


class Events(NamedTuple):
    """What a descriptor, or several of equal `StoredWidths`, does: counts that no width of the datapath is in.

    read_bits, written_bits : of the memory. key_elements, lsb_elements, value_elements : fetched. once, twice : keys times
    head_dim of first passes that count or are dropped, and of second ones. scored, final : keys of all passes, of those that
    count. started_rows : rows of all passes. kept_elements : of weighted sums. accumulated : importance. outputs : summed.
    """

    read_bits: int
    written_bits: int
    key_elements: int
    lsb_elements: int
    value_elements: int
    once: int
    twice: int
    scored_elements: int
    scored: int
    final: int
    started_rows: int
    kept_elements: int
    accumulated: int
    outputs: int


def stored_widths(work: AttentionWork, config: AcceleratorConfig) -> StoredWidths:
    """Widths of the descriptor's operands in memory; behind fetchers all have the datapath's."""
    op, formats = work.query_key, config.formats
    progressive = _progressive(work, config)
    if config.memory.has_fetchers:
        return StoredWidths(formats.key_msb_bits, formats.key_lsb_bits, formats.value_bits, progressive)
    return StoredWidths(op.key_msb_bits, op.key_lsb_bits, work.groups[0].probability_value.value_bits, progressive)


def events_of(
    work: AttentionWork, decided: Decisions | Attended, stored: StoredWidths, traffic: Mapping[Traffic, int]
) -> Events:
    """Events of one descriptor; a discarded first pass costs scores and exponentials again."""
    op, group = work.query_key, work.groups[0]
    final, repeated = int(decided.row_keys.sum()), int(decided.row_keys[decided.lsb].sum())
    kept = int(np.minimum(decided.row_keys, work.kept).sum())
    accumulated = final if group.column_sum is not None else 0
    if group.row_pick is not None:
        accumulated += work.heads * group.row_pick.rows * op.keys
    return Events(
        read_bits=8 * sum(size for kind, size in traffic.items() if kind is not Traffic.OUTPUT),
        written_bits=8 * traffic.get(Traffic.OUTPUT, 0),
        key_elements=work.kv_heads * op.keys * op.head_dim,
        lsb_elements=8 * traffic.get(Traffic.KEY_LSB, 0) // max(stored.key_lsb, 1) if stored.progressive else 0,
        value_elements=8 * traffic.get(Traffic.VALUE, 0) // stored.value,
        once=op.head_dim * final,
        twice=op.head_dim * repeated,
        scored_elements=op.head_dim * (final + repeated),
        scored=final + repeated,
        final=final,
        started_rows=decided.row_keys.size + int(decided.lsb.sum()),
        kept_elements=kept * op.head_dim,
        accumulated=accumulated,
        outputs=work.heads * op.queries * op.head_dim if group.head_sum is not None else 0,
    )


def actions_of(events: Events, stored: StoredWidths, formats: NumberFormats) -> dict[tuple[Component, Action], int]:
    """Energy events in the widths of the datapath."""
    # An operand wider than the datapath is narrowed on its way into the buffer.
    msb_bits = min(stored.key_msb, formats.key_bits)
    key_bits = min(stored.key_msb + stored.key_lsb, formats.key_bits)
    first_bits = msb_bits if stored.progressive else key_bits
    value_bits = min(stored.value, formats.value_bits)
    scored, final = events.scored, events.final
    actions = {
        (Component.DRAM, Action.READ_BIT): events.read_bits,
        (Component.DRAM, Action.WRITE_BIT): events.written_bits,
        (Component.FETCHER, Action.TRANSFER_BIT): events.read_bits,
        (Component.KEY_BUFFER, Action.WRITE_BIT): events.key_elements * first_bits
        + events.lsb_elements * (key_bits - msb_bits),
        (Component.KEY_BUFFER, Action.READ_BIT): events.once * first_bits + events.twice * key_bits,
        (Component.DOT_PRODUCT, Action.MULTIPLY): events.scored_elements,
        (Component.DOT_PRODUCT, Action.ADD): events.scored_elements,
        (Component.DOT_PRODUCT, Action.SCALE): scored,
        (Component.SOFTMAX, Action.COMPARE): scored,
        (Component.SOFTMAX, Action.EXPONENTIAL): scored,
        (Component.SOFTMAX, Action.ADD): scored,
        (Component.SOFTMAX, Action.RECIPROCAL): events.started_rows,
        (Component.SOFTMAX, Action.NORMALISE): final,
        (Component.SOFTMAX, Action.WRITE_BIT): scored * (formats.score_bits + formats.exponential_bits),
        (Component.SOFTMAX, Action.READ_BIT): scored * formats.score_bits + final * formats.exponential_bits,
        (Component.VALUE_BUFFER, Action.WRITE_BIT): events.value_elements * value_bits,
        (Component.VALUE_BUFFER, Action.READ_BIT): events.kept_elements * value_bits,
        (Component.WEIGHTED_SUM, Action.MULTIPLY): events.kept_elements,
        (Component.WEIGHTED_SUM, Action.ADD): events.kept_elements,
    }
    if events.accumulated:
        actions[Component.IMPORTANCE, Action.READ_BIT] = events.accumulated * formats.token_importance_bits
        actions[Component.IMPORTANCE, Action.WRITE_BIT] = events.accumulated * formats.token_importance_bits
    if events.accumulated + events.outputs:
        actions[Component.IMPORTANCE, Action.ADD] = events.accumulated + events.outputs
    return actions


def attention_actions(
    work: AttentionWork, decided: Decisions, config: AcceleratorConfig, traffic: Mapping[Traffic, int]
) -> dict[tuple[Component, Action], int]:
    """Energy events of one descriptor."""
    stored = stored_widths(work, config)
    return actions_of(events_of(work, decided, stored, traffic), stored, config.formats)


def memory_actions(useful: Actions, moved_bytes: int, activates: int) -> dict[tuple[Component, Action], int]:
    """Whole accesses and row activations, in place of the average per useful bit."""
    return {
        **{key: -useful[key] for key in ((Component.DRAM, Action.READ_BIT), (Component.DRAM, Action.WRITE_BIT))},
        (Component.DRAM, Action.TRANSFER_BIT): 8 * moved_bytes,
        (Component.DRAM, Action.ACTIVATE): activates,
    }


def selection_actions(
    keys: int, select_cycles_total: int, config: AcceleratorConfig
) -> dict[tuple[Component, Action], int]:
    """The local top-k engine: each busy cycle of the selector passes a row of its lanes, the filter passes all `keys` again."""
    bits = config.formats.probability_bits
    passed = select_cycles_total * config.topk.parallelism + keys
    return {
        (Component.VALUE_TOPK, Action.WRITE_BIT): (passed + keys) * bits,
        (Component.VALUE_TOPK, Action.READ_BIT): passed * bits,
        (Component.VALUE_TOPK, Action.COMPARE): 2 * passed,
    }
