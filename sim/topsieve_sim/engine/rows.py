"""One layer of a trace row by row: when each row was in which unit, how full the queues were, what the memory moved.

`simulate` keeps sums; this runs the descriptors of one layer again and keeps the events. The layer is run as a trace of its own,
so its cycles are those of `simulate` on that part of the trace with the same seed. Before DRAM, all tokens of the whole trace keep
their places, so its cycles are those that the layer takes in the whole run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.arch.config import MemoryModel
from topsieve_sim.closed_loop.commands import TokenPlaces
from topsieve_sim.closed_loop.loop import closed_loop
from topsieve_sim.closed_loop.memory import machine_memory
from topsieve_sim.engine.closed_loop import stored_tokens, token_places
from topsieve_sim.engine.groups import timed_groups
from topsieve_sim.engine.program import prepare
from topsieve_sim.errors import InputError
from topsieve_sim.report import Counter, Slice, Unit
from topsieve_sim.timing.accounting import KEY_LSB, KEY_MSB, VALUE
from topsieve_sim.timing.attention import AttentionGroup, group_ports, machine_output, run_group
from topsieve_sim.timing.attention_kernel import (
    DECIDED,
    FILTERED,
    FIRST_PROBABILITY,
    FIRST_PRODUCT,
    LAST_PROBABILITY,
    LAST_PRODUCT,
    LAST_WEIGHTED,
    LEFT,
    PICK,
    ROW,
    SECOND_PASS,
    SELECTED,
)
from topsieve_sim.timing.memory import fetch_rows
from topsieve_sim.timing.memory_port import MemoryPort, scripted_port
from topsieve_sim.trace import Trace

Int64 = NDArray[np.int64]

# Points of the bandwidth counter; a point is the mean over its share of the run.
BANDWIDTH_POINTS = 2000
_PLANES = {KEY_MSB: "keys", KEY_LSB: "key LSBs", VALUE: "values"}


@dataclass(frozen=True)
class RowTimes:
    """The descriptors of one layer, one after the other.

    cycles : of all of them. slices : of the units, at most one at a time in each. counters : memory bandwidth of keys and
    values in GB/s, and the rows in each queue.
    """

    config: AcceleratorConfig
    name: str
    cycles: int
    slices: tuple[Slice, ...]
    counters: tuple[Counter, ...]


def row_times(
    trace: Trace, config: AcceleratorConfig, *, layer: int = 0, sequence: int = 0, step: int = 0, seed: int = 0
) -> RowTimes:
    """Events of the attention of one layer, sequence and generated token.

    Raises
    ------
    InputError
        the trace has no attention there, or keys of it end early.
    """
    part = layer_trace(trace, layer, sequence, step)
    start = 0
    slices: list[Slice] = []
    levels: dict[str, list[tuple[Int64, Int64]]] = {}
    accesses: list[tuple[Int64, Int64]] = []
    moved: list[tuple[Int64, Int64]] = []
    in_loop = config.memory.model is MemoryModel.DRAM
    tokens = prepare(trace).tokens if in_loop else {}
    for unit, group, survivors in timed_groups(part, config, seed):
        if in_loop:
            run = _dram_run(config, group, token_places(unit, stored_tokens(unit, config, tokens), survivors))
        else:
            run = _run(config, group)
        slices += _slices(config, group, run, start)
        for name, (entered, gone) in _queues(group, run.events).items():
            levels.setdefault(name, []).append((entered + start, gone + start))
        moved.append((run.word_cycles + start, run.word_bytes))
        accesses += [(issued + start, back + start) for issued, back in run.accesses]
        start += run.cycles
    counters = [_bandwidth(config, start, moved)]
    if accesses:
        counters.append(_level("accesses between port and data", accesses, "accesses"))
    counters += [_level(name, parts, "rows") for name, parts in levels.items()]
    name = f"{trace.model} {trace.method} layer {layer} sequence {sequence} step {step}".strip()
    return RowTimes(config, name, start, tuple(slices), tuple(counters))


def layer_trace(trace: Trace, layer: int, sequence: int, step: int) -> Trace:
    """The attention of one layer, sequence and step as a trace of its own, operands included.

    Raises
    ------
    InputError
        the trace has no attention there.
    """
    wanted: dict[int, int] = {}
    for group in trace.attention_groups():
        op = group.query_key
        if (op.layer, op.sequence, op.step) == (layer, sequence, step):
            wanted |= {index: len(wanted) + place for place, index in enumerate(range(group.start, group.stop))}
    if not wanted:
        place = f"layer {layer}, sequence {sequence}, step {step}"
        raise InputError("the trace has no attention there", value=place)
    operands = {(wanted[index], name): array for (index, name), array in trace.operands.items() if index in wanted}
    return replace(trace, ops=tuple(trace.ops[index] for index in wanted), operands=operands)


@dataclass(frozen=True)
class _Run:
    """Events of one descriptor, its memory requests (kind, head, cycle of the first word, cycles), words moved, and with DRAM
    the cycles in which accesses left their ports and their data was back."""

    cycles: int
    events: Int64
    requests: list[tuple[int, int, int, int]]
    word_cycles: Int64
    word_bytes: Int64
    accesses: tuple[tuple[Int64, Int64], ...] = ()


def _run(config: AcceleratorConfig, group: AttentionGroup) -> _Run:
    if config.memory.has_fetchers:
        port, query_port = group_ports(config, group)
        times, events = run_group(config, group, port, query_port, output=machine_output(config))
        data = port.state.data[: int(port.plan.burst_words.sum())]
        words = data[data > 0]
        sizes = np.full(words.size, config.memory.bytes_per_cycle)
        return _Run(int(times.cycles[0]), events, [], words, sizes)
    # The ideal memory serves a request a word a cycle from the cycle after it was taken; when that was, a script of the
    # same answers tells.
    port, query_port = group_ports(config, group)
    most = group.heads * (2 + group.queries)
    ideal = port._replace(asked=np.full((most, 3), -1, np.int64))
    first, events = run_group(config, group, ideal, query_port)
    asked = ideal.asked[: int(ideal.at[0])]
    script, spent, sizes = _same_answers(config, group, asked)
    _, again = run_group(config, group, script, group_ports(config, group)[1])
    if not np.array_equal(events, again):
        raise RuntimeError("the script does not answer like the ideal memory")
    picked = script.picked[: len(asked)]
    requests = [
        (int(kind), int(head), int(begin) + 1, int(words))
        for (kind, head, _), begin, words in zip(asked, picked, spent, strict=True)
    ]
    served = np.concatenate([begin + np.arange(words) for _, _, begin, words in requests])
    parts = [_word_bytes(config, int(words), int(size)) for words, size in zip(spent, sizes, strict=True)]
    return _Run(int(first.cycles[0]), events, requests, served, np.concatenate(parts))


def _dram_run(config: AcceleratorConfig, group: AttentionGroup, places: TokenPlaces) -> _Run:
    found = closed_loop(config, group, places)
    told = found.transfers
    requests, busy_until = [], 0
    # As the accounting has it: a request is served from the cycle after it was taken, or after the one before it, to its last data.
    for number, (kind, head, _) in enumerate(told.requests.tolist()):
        begin = max(busy_until, int(told.taken[number]) + 1)
        last = told.back[told.offset[number] : told.offset[number + 1]]
        busy_until = max(busy_until, begin, int(last.max(initial=0)) + 1)
        # A request whose data came before that of the one before it has no cycle of its own.
        if busy_until > begin:
            requests.append((kind, head, begin, busy_until - begin))
    # An access takes its channel's bus for some cycles, the last of them the one in which its data is back.
    size = machine_memory(config).organization.access_bytes
    cycles = max(1, round(size * config.memory.channels / config.memory.bytes_per_cycle))
    loaded = told.back[: told.offset[len(told.requests)]]
    words = np.maximum(loaded[:, None] - np.arange(cycles), 0).reshape(-1)
    share = np.full(cycles, size // cycles)
    share[0] += size % cycles
    sizes, waiting = np.tile(share, loaded.size), ((told.issued, told.back),)
    return _Run(int(found.times.cycles[0]), found.events, requests, words, sizes, waiting)


def _word_bytes(config: AcceleratorConfig, words: int, size: int) -> Int64:
    found = np.full(words, config.memory.bytes_per_cycle)
    found[-1] -= words * config.memory.bytes_per_cycle - size
    return found


def _same_answers(config: AcceleratorConfig, group: AttentionGroup, asked: Int64) -> tuple[MemoryPort, Int64, Int64]:
    """A script that answers `asked` as the ideal memory does; words and bytes of each request."""
    shape = group.shape(config)
    row_bits = {KEY_MSB: shape[6] * shape[8], KEY_LSB: shape[6] * shape[9], VALUE: shape[6] * shape[10]}
    keys = group.row_keys if group.row_keys is not None else np.full(group.heads * group.queries, group.keys)
    lanes, memory = config.softmax.lanes, config.memory
    arrivals, words, sizes = [], [], []
    for kind, _, survivors_of in asked:
        rows = group.keys if survivors_of < 0 else min(group.kept, int(keys[survivors_of]))
        arrival = np.zeros(-(-rows // lanes), np.int64)
        _, count, size = fetch_rows(
            0,
            rows,
            row_bits[int(kind)],
            lanes,
            memory.bytes_per_cycle,
            memory.latency_cycles,
            np.zeros(0, np.bool_),
            arrival,
        )
        arrivals.append(arrival)
        words.append(count)
        sizes.append(size)
    spent = np.array(words, np.int64)
    return scripted_port(np.concatenate(arrivals), len(asked), spent + 1), spent, np.array(sizes, np.int64)


def _slices(config: AcceleratorConfig, group: AttentionGroup, run: _Run, start: int) -> list[Slice]:
    """Rows in the units that take one at a time. Of a selected row the weighted sum's last beats are known, not its first."""
    events = run.events
    product_interval, weighted_interval = group.shape(config)[:2]
    final = events[events[:, LEFT] >= 0]
    selects = group.kept < group.keys
    last = final[:, LAST_WEIGHTED] + weighted_interval
    weighted = np.minimum(final[:, FIRST_PROBABILITY], last - 1)
    if selects:
        values = group.kept if group.queries == 1 else group.keys
        beats = -(-values // config.softmax.lanes)
        weighted = np.maximum(last - beats * weighted_interval, np.concatenate(([0], last[:-1])))
    spans = [
        (Unit.DOT_PRODUCT, events, events[:, FIRST_PRODUCT], events[:, LAST_PRODUCT] + product_interval),
        (Unit.SOFTMAX_NORMALISE, final, final[:, FIRST_PROBABILITY], final[:, LAST_PROBABILITY] + 1),
        (Unit.WEIGHTED_SUM, final, weighted, last),
    ]
    if selects:
        cycles = np.broadcast_to(group.select_cycles, group.heads * group.queries)[final[:, ROW]]
        spans.append((Unit.VALUE_TOPK, final, final[:, SELECTED] - cycles, final[:, SELECTED]))
    found = []
    for unit, rows, begin, end in spans:
        for row, second, first, stop in zip(rows[:, ROW], rows[:, SECOND_PASS], begin, end, strict=True):
            if stop > first:
                head, query = divmod(int(row), group.queries)
                name = f"head {head} row {query}" + (" with LSBs" if second else "")
                found.append(_slice(unit, name, start + int(first), int(stop - first)))
    found += [
        _slice(Unit.MEMORY, f"{_PLANES[kind]} of head {head}", start + at, words)
        for kind, head, at, words in run.requests
    ]
    return found


def _slice(unit: Unit, name: str, start: int, cycles: int) -> Slice:
    return Slice(unit=unit, name=name, start_cycle=start, duration_cycles=cycles, busy_cycles=cycles)


def _queues(group: AttentionGroup, events: Int64) -> dict[str, tuple[Int64, Int64]]:
    """(cycle of entry, cycle of exit) of every row in each queue, by the queue's name."""
    final = events[events[:, LEFT] >= 0]
    queues = {
        "rows issued to the dot product": (events[:, PICK], events[:, LAST_PRODUCT] + 1),
        "rows in the softmax buffers": (events[:, FIRST_PRODUCT], events[:, DECIDED]),
        "decided rows not yet normalised": (
            final[:, DECIDED],
            np.maximum(final[:, FIRST_PROBABILITY], final[:, DECIDED]),
        ),
        "output rows": (final[:, LAST_WEIGHTED], final[:, LEFT]),
    }
    if group.kept < group.keys:
        queues["rows in the top-k engine"] = (final[:, FIRST_PROBABILITY], final[:, FILTERED])
    return queues


def _level(name: str, parts: list[tuple[Int64, Int64]], unit: str) -> Counter:
    """How many are in a queue, as steps."""
    entered, gone = (np.concatenate(column) for column in zip(*parts, strict=True))
    cycles, where = np.unique(np.concatenate((entered, gone)), return_inverse=True)
    change = np.zeros(cycles.size, np.int64)
    np.add.at(change, where, np.concatenate((np.ones_like(entered), -np.ones_like(gone))))
    return Counter(
        name=name, unit=unit, cycles=tuple(cycles.tolist()), values=tuple(np.cumsum(change).astype(float).tolist())
    )


def _bandwidth(config: AcceleratorConfig, cycles: int, moved: list[tuple[Int64, Int64]]) -> Counter:
    """Bytes a second of keys and values, mean over equal shares of the run; queries and outputs have ports of their own."""
    width = max(1, -(-cycles // BANDWIDTH_POINTS))
    points = -(-cycles // width)
    when, size = (np.concatenate(column) for column in zip(*moved, strict=True))
    inside = np.minimum(when, cycles - 1)
    sums = np.bincount(inside // width, weights=size, minlength=points)
    lengths = np.full(points, width)
    lengths[-1] = cycles - (points - 1) * width
    values = sums / lengths * config.clock_mhz * 1e-3
    return Counter(
        name="memory bandwidth",
        unit="GB/s",
        cycles=tuple((np.arange(points) * width).tolist()),
        values=tuple(values.tolist()),
    )
