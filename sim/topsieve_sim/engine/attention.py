"""Attention descriptors on the machine: what the data decides, exact times, bytes and actions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.energy import Action, Component
from topsieve_sim.engine.ledger import Cost, UnitCycles
from topsieve_sim.engine.program import AttentionWork
from topsieve_sim.engine.selection import select_cycles
from topsieve_sim.golden.attention import machine_attention, quantise_operands
from topsieve_sim.golden.progressive import integer_threshold
from topsieve_sim.report import Stall, Traffic, Unit
from topsieve_sim.timing.attention import BYTE_KIND_NAMES, CAUSE_NAMES, UNIT_NAMES, AttentionGroup, attention_times
from topsieve_sim.trace import Trace

_UNITS = {
    "memory": Unit.MEMORY,
    "dot_product": Unit.DOT_PRODUCT,
    "softmax_fill": Unit.SOFTMAX_FILL,
    "softmax_exponential": Unit.SOFTMAX_EXPONENTIAL,
    "softmax_normalise": Unit.SOFTMAX_NORMALISE,
    "topk": Unit.VALUE_TOPK,
    "weighted_sum": Unit.WEIGHTED_SUM,
}
_CAUSES = {
    "waiting_for_input": Stall.INPUT,
    "waiting_for_memory": Stall.MEMORY,
    "back_pressure": Stall.DOWNSTREAM,
    "done": Stall.DRAINED,
}


@dataclass(frozen=True)
class Decisions:
    """What the data (or the trace) decided for one descriptor.

    row_keys : int64 [rows], keys of each row. lsb : bool [rows], rows that are computed twice. probability : int64 [sum
    of row_keys], what local value selection sees, or None where it is drawn or not needed.
    """

    row_keys: NDArray[np.int64]
    lsb: NDArray[np.bool_]
    probability: NDArray[np.int64] | None


class Assumptions:
    """Which notes a report needs; each is set where its assumption was made."""

    def __init__(self) -> None:
        self.drawn_values = False
        self.no_second_pass = False
        self.wide_operands = False


def decide(
    work: AttentionWork, trace: Trace, config: AcceleratorConfig, memo: dict[bytes, Decisions], assumed: Assumptions
) -> Decisions:
    """Rows, second passes and probabilities of a descriptor; `memo` keeps those of equal content."""
    op = work.query_key
    rows = work.kv_heads * work.rows_per_kv_head
    row_keys = np.full(rows, op.keys, np.int64)
    if op.causal:
        one_head = np.maximum(op.keys - op.queries + 1 + np.arange(op.queries), 1)
        row_keys = np.tile(one_head, work.heads)
    progressive = _progressive(work, config)
    selects = work.kept < op.keys
    lsb = np.concatenate([_given_lsb_rows(group.query_key.lsb_rows, work) for group in work.groups])
    if not progressive:
        lsb = np.zeros(rows, np.bool_)
    has_operands = (work.groups[0].start, "query") in trace.operands
    if has_operands and (progressive or selects):
        parts = [_computed(work, index, trace, config, row_keys, memo) for index in range(len(work.groups))]
        if progressive:
            lsb = np.concatenate([part.lsb for part in parts])
        probabilities = [part.probability for part in parts if part.probability is not None]
        return Decisions(row_keys, lsb, np.concatenate(probabilities) if selects else None)
    if progressive and op.lsb_rows < 0:
        assumed.no_second_pass = True
    if selects:
        assumed.drawn_values = True
    return Decisions(row_keys, lsb, None)


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
    work: AttentionWork,
    index: int,
    trace: Trace,
    config: AcceleratorConfig,
    row_keys: NDArray[np.int64],
    memo: dict[bytes, Decisions],
) -> Decisions:
    """What the golden model decides for group `index` of `work`."""
    group = work.groups[index]
    op = group.query_key
    closing = group.stop - 1
    query, key, value = (
        trace.operands[group.start, "query"],
        trace.operands[group.start, "key"],
        trace.operands[closing, "value"],
    )
    bias = trace.operands.get((group.start, "bias"))
    digest = hashlib.blake2b(digest_size=16)
    for part in (query, key, value, bias):
        if part is not None:
            digest.update(repr(part.shape).encode())
            digest.update(np.ascontiguousarray(part).data)
    digest.update(repr((op.threshold, op.causal, work.kept)).encode())
    name = digest.digest()
    if name in memo:
        return memo[name]
    operands = quantise_operands(query, key, value, config.formats, bias)
    threshold = integer_threshold(op.threshold, config.formats) if _progressive(work, config) else 0
    per_group = op.heads * op.queries
    keys = row_keys[:per_group]
    valid = (np.arange(op.keys) < keys[:, None]).reshape(op.heads, op.queries, op.keys) if op.causal else None
    result = machine_attention(operands, config, threshold, valid=valid)
    # Query heads that share a key-value head are neighbours, so [heads, queries] is already in the rows' order.
    seen = result.probability.reshape(per_group, op.keys)
    probability = seen[valid.reshape(per_group, op.keys)] if valid is not None else seen.reshape(-1)
    memo[name] = Decisions(keys, result.lsb_rows.reshape(-1), probability)
    return memo[name]


def attention_costs(
    work: list[AttentionWork],
    decisions: list[Decisions],
    config: AcceleratorConfig,
    generator: np.random.Generator,
) -> list[Cost]:
    """Exact cost of every descriptor, each from an empty machine. Equal descriptors are timed once.

    Raises
    ------
    InputError
        a descriptor does not fit the machine.
    """
    select = _value_selection(work, decisions, config, generator)
    timed: dict[tuple[object, ...], int] = {}
    places: list[int] = []
    groups: list[AttentionGroup] = []
    for descriptor, decided, cycles in zip(work, decisions, select, strict=True):
        group = _timing_group(descriptor, decided, cycles, config)
        name = (group.shape(config), decided.row_keys.tobytes(), decided.lsb.tobytes(), cycles.tobytes())
        place = timed.setdefault(name, len(groups))
        if place == len(groups):
            groups.append(group)
        places.append(place)
    times = attention_times(config, groups)
    return [
        _cost(
            descriptor, decided, cycles, config,
            int(times.cycles[place]), times.unit_cycles[place].tolist(), times.dram_bytes[place].tolist(),
        )
        for descriptor, decided, cycles, place in zip(work, decisions, select, places, strict=True)
    ]  # fmt: skip


def _value_selection(
    work: list[AttentionWork],
    decisions: list[Decisions],
    config: AcceleratorConfig,
    generator: np.random.Generator,
) -> list[NDArray[np.int64]]:
    """Selection cycles of every row of every descriptor; rows of one descriptor that select nothing have none."""
    bits = config.formats.probability_bits
    drawn = [
        number
        for number, (descriptor, decided) in enumerate(zip(work, decisions, strict=True))
        if descriptor.kept < descriptor.query_key.keys and decided.probability is None
    ]
    found: dict[int, NDArray[np.int64]] = {}
    if drawn:
        sizes = [decisions[number].row_keys for number in drawn]
        kept = [np.full(size.size, work[number].kept) for number, size in zip(drawn, sizes, strict=True)]
        cycles = select_cycles(config, np.concatenate(sizes), np.concatenate(kept), None, bits, generator)
        bounds = np.cumsum([size.size for size in sizes])[:-1]
        found = dict(zip(drawn, np.split(cycles, bounds), strict=True))
    result = []
    for number, (descriptor, decided) in enumerate(zip(work, decisions, strict=True)):
        if number in found:
            result.append(found[number])
        elif decided.probability is not None:
            kept_rows = np.full(decided.row_keys.size, descriptor.kept)
            result.append(select_cycles(config, decided.row_keys, kept_rows, decided.probability, bits, generator))
        else:
            result.append(np.zeros(decided.row_keys.size, np.int64))
    return result


def _timing_group(
    work: AttentionWork, decided: Decisions, select: NDArray[np.int64], config: AcceleratorConfig
) -> AttentionGroup:
    op = work.query_key
    # Without the progressive controller both planes are fetched at once.
    static = 0 if config.progressive.enabled else op.key_lsb_bits
    return AttentionGroup(
        heads=work.kv_heads,
        queries=work.rows_per_kv_head,
        keys=op.keys,
        kept=work.kept,
        head_dim=op.head_dim,
        lsb_flags=decided.lsb,
        select_cycles=select,
        row_keys=decided.row_keys,
        progressive=_progressive(work, config),
        query_bits=op.query_bits,
        key_msb_bits=op.key_msb_bits + static,
        key_lsb_bits=op.key_lsb_bits - static,
        value_bits=work.groups[0].probability_value.value_bits,
    )


def _cost(
    work: AttentionWork,
    decided: Decisions,
    select: NDArray[np.int64],
    config: AcceleratorConfig,
    cycles: int,
    table: list[list[int]],
    sizes: list[int],
) -> Cost:
    units: dict[Unit, UnitCycles] = {}
    for name, row in zip(UNIT_NAMES, table, strict=True):
        spent = dict(zip(CAUSE_NAMES, row, strict=True))
        if name == "topk" and work.kept == work.query_key.keys:
            continue
        stalls = {cause: spent[text] for text, cause in _CAUSES.items()}
        units[_UNITS[name]] = UnitCycles(spent["busy"], stalls)
    group = work.groups[0]
    if group.column_sum is not None:
        # The accumulators take the probability beats as they pass.
        lanes = config.softmax.lanes
        summed = int(((decided.row_keys + lanes - 1) // lanes).sum())
        units[Unit.IMPORTANCE] = UnitCycles(summed, {Stall.INPUT: cycles - summed})
    traffic = {Traffic(name): size for name, size in zip(BYTE_KIND_NAMES, sizes, strict=True) if size}
    return Cost(cycles, units, traffic, _actions(work, decided, select, config, traffic))


def _actions(
    work: AttentionWork,
    decided: Decisions,
    select: NDArray[np.int64],
    config: AcceleratorConfig,
    traffic: dict[Traffic, int],
) -> dict[tuple[Component, Action], int]:
    """Energy events of one descriptor; a discarded first pass costs scores and exponentials again."""
    op, formats = work.query_key, config.formats
    group = work.groups[0]
    rows = decided.row_keys.size
    final = int(decided.row_keys.sum())
    repeated = int(decided.row_keys[decided.lsb].sum())
    started_rows = rows + int(decided.lsb.sum())
    scored = final + repeated
    kept = int(np.minimum(decided.row_keys, work.kept).sum())
    # An operand wider than the datapath is narrowed on its way into the buffer.
    msb_bits = min(op.key_msb_bits, formats.key_bits)
    key_bits = min(op.key_msb_bits + op.key_lsb_bits, formats.key_bits)
    first_bits = msb_bits if _progressive(work, config) else key_bits
    value_bits = min(group.probability_value.value_bits, formats.value_bits)
    value_rows = 8 * traffic.get(Traffic.VALUE, 0) // group.probability_value.value_bits
    lsb_elements = 8 * traffic.get(Traffic.KEY_LSB, 0) // max(op.key_lsb_bits, 1)
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
    if work.kept < op.keys:
        # Every busy cycle of the selector passes one row of the engine's lanes; the filter passes all once more.
        passed = int(select.sum()) * config.topk.parallelism + final
        actions[Component.VALUE_TOPK, Action.WRITE_BIT] = (passed + final) * formats.probability_bits
        actions[Component.VALUE_TOPK, Action.READ_BIT] = passed * formats.probability_bits
        actions[Component.VALUE_TOPK, Action.COMPARE] = 2 * passed
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
