"""Operations outside attention groups: which unit runs them, at what throughput.

These are closed forms of the stated throughputs, not beat-exact times: `cycles` is the longer of the arithmetic and the
memory stream, plus the memory latency and the unit's own latency. `docs/simulator.md` has the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.energy import Action, Component, cascade_score_bits
from topsieve_sim.engine.ledger import Cost, UnitCycles
from topsieve_sim.errors import InputError
from topsieve_sim.golden.attention_latency import attention_latencies, beats
from topsieve_sim.golden.topk_latency import LOAD_TO_COMMAND, filter_stages
from topsieve_sim.report import Traffic, Unit
from topsieve_sim.trace.ops import (
    ArgmaxRow,
    FeedForward,
    Gather,
    GreedyMaxMin,
    Merge,
    Norm,
    Op,
    Pool1d,
    Projection,
    Search,
    Similarity,
    Threshold,
    TopK,
)

LINEAR_KINDS = frozenset({Projection.kind, FeedForward.kind})
# Hidden states stay with whoever computes the linear maps, and so does the compaction of their rows.
HOST_KINDS = LINEAR_KINDS | {Gather.kind}


@contextmanager
def at_operation(index: int, op: Op) -> Iterator[None]:
    """Name the operation in an `InputError` that is raised inside."""
    try:
        yield
    except InputError as error:
        raise InputError(
            error.problem, field=f"op {index} ({op.kind}).{error.field}", value=error.value, allowed=error.allowed
        ) from error


def single_cost(op: Op, config: AcceleratorConfig, selection_cycles: int = 0) -> Cost:
    """Cost of an operation outside every attention group.

    `selection_cycles` is for a `TopK`: those of all its repeats, the last one's flush included. `Projection`, `FeedForward`
    and `Gather` are priced as with `config.fully_connected`.

    Raises
    ------
    InputError
        a top-k is longer than the machine's capacity, or the kind of operation is not known.
    """
    if isinstance(op, TopK):
        return _topk(op, config, selection_cycles)
    if isinstance(op, Similarity):
        return _dot_products(op.rows_a, op.rows_b, op.width, config)
    if isinstance(op, Norm):
        return _norm(op, config)
    if isinstance(op, Merge):
        return _merge(op, config)
    if isinstance(op, Gather):
        return _gather(op, config)
    if isinstance(op, Projection):
        return _linear([(op.tokens, op.inputs, op.outputs)], config)
    if isinstance(op, FeedForward):
        up = [(op.tokens, op.width, op.hidden)] * (2 if op.gated else 1)
        return _linear([*up, (op.tokens, op.hidden, op.width)], config)
    return _scan(op, config)


def _row_bytes(width: int, bits: int) -> int:
    return -(-width * bits // 8)


def _words(size: int, config: AcceleratorConfig) -> int:
    return -(-size // config.memory.bytes_per_cycle)


def _cost(
    config: AcceleratorConfig,
    busy: Mapping[Unit, int],
    latency_cycles: int,
    actions: Mapping[tuple[Component, Action], int],
    read: Mapping[Traffic, int] | None = None,
    written: Mapping[Traffic, int] | None = None,
) -> Cost:
    """Join arithmetic and memory stream. Reads and writes have ports of their own, as for attention outputs."""
    read, written = read or {}, written or {}
    read_bytes, written_bytes = sum(read.values()), sum(written.values())
    words = max(_words(read_bytes, config), _words(written_bytes, config))
    fetch = config.memory.latency_cycles if read_bytes else 0
    longest = max(busy.values(), default=0)
    cycles = fetch + max(longest, words) + latency_cycles
    units: dict[Unit, UnitCycles] = {}
    for unit, work in busy.items():
        waiting = fetch + max(0, words - work) if words else 0
        units[unit] = UnitCycles(work, memory=waiting, drained=cycles - work - waiting)
    total = dict(actions)
    if words:
        held_up = max(0, longest - words)
        units[Unit.MEMORY] = UnitCycles(words, downstream=held_up, drained=cycles - words - held_up)
        for key, size in (
            ((Component.DRAM, Action.READ_BIT), read_bytes),
            ((Component.DRAM, Action.WRITE_BIT), written_bytes),
            ((Component.FETCHER, Action.TRANSFER_BIT), read_bytes),
        ):
            if size:
                total[key] = total.get(key, 0) + 8 * size
    return Cost(cycles, units, {**read, **written}, (total,))


def _topk(op: TopK, config: AcceleratorConfig, selection_cycles: int) -> Cost:
    """Second top-k engine, one repeat after the other: loads from the importance memory, selects, filters.

    Equal to `timing.topk.topk_times` with one bank and an output that never stalls.
    """
    if op.n > config.capacity:
        raise InputError(
            "more scores than the top-k engine holds",
            field="n",
            value=op.n,
            allowed=f"1 to capacity = {config.capacity}",
        )
    machine = attention_latencies(config)
    # A beat of scores wider than the engine enters in parts.
    load = beats(op.n, min(machine.lanes, config.topk.parallelism))
    sift = beats(op.n, config.topk.parallelism)
    bits = cascade_score_bits(config)
    engine = op.repeats * (load + LOAD_TO_COMMAND + sift) + selection_cycles
    passed = selection_cycles * config.topk.parallelism + op.repeats * op.n
    actions = {
        (Component.IMPORTANCE, Action.READ_BIT): op.repeats * op.n * config.formats.token_importance_bits,
        (Component.CASCADE_TOPK, Action.WRITE_BIT): (passed + op.repeats * op.n) * bits,
        (Component.CASCADE_TOPK, Action.READ_BIT): passed * bits,
        (Component.CASCADE_TOPK, Action.COMPARE): 2 * passed,
    }
    busy = {Unit.CASCADE_TOPK: engine, Unit.IMPORTANCE: op.repeats * load}
    return _cost(config, busy, filter_stages(config.topk.parallelism) + 1, actions)


def _dot_products(rows_a: int, rows_b: int, width: int, config: AcceleratorConfig) -> Cost:
    """Dot-product array: the rows of b stand in the key buffer as far as they fit, the rows of a stream past them.

    Vectors are read at the key's bits. Where b does not fit the buffer, the rows of a are read once for each part of b.
    """
    formats = config.formats
    machine = attention_latencies(config)
    row_bytes = _row_bytes(width, formats.key_bits)
    parts = -(-rows_b * width // (config.capacity * config.max_head_dim))
    cycles = rows_a * beats(rows_b, machine.lanes) * config.dot_product.interval_cycles(machine.lanes, width)
    products = rows_a * rows_b
    actions = {
        (Component.KEY_BUFFER, Action.WRITE_BIT): rows_b * width * formats.key_bits,
        (Component.KEY_BUFFER, Action.READ_BIT): products * width * formats.key_bits,
        (Component.DOT_PRODUCT, Action.MULTIPLY): products * width,
        (Component.DOT_PRODUCT, Action.ADD): products * width,
        (Component.DOT_PRODUCT, Action.SCALE): products,
    }
    read = {Traffic.VECTOR_READ: (rows_b + parts * rows_a) * row_bytes}
    return _cost(config, {Unit.DOT_PRODUCT: cycles}, machine.dot_product, actions, read)


def _norm(op: Norm, config: AcceleratorConfig) -> Cost:
    """Dot-product array, each vector with itself (p = 2) or its signs (p = 1)."""
    formats = config.formats
    machine = attention_latencies(config)
    cycles = beats(op.rows, machine.lanes) * config.dot_product.interval_cycles(machine.lanes, op.width)
    elements = op.rows * op.width
    actions = {
        (Component.KEY_BUFFER, Action.WRITE_BIT): elements * formats.key_bits,
        (Component.KEY_BUFFER, Action.READ_BIT): elements * formats.key_bits,
        (Component.DOT_PRODUCT, Action.ADD): elements,
        (Component.DOT_PRODUCT, Action.SCALE): op.rows,
    }
    if op.p != 1:
        actions[Component.DOT_PRODUCT, Action.MULTIPLY] = elements
    read = {Traffic.VECTOR_READ: op.rows * _row_bytes(op.width, formats.key_bits)}
    return _cost(config, {Unit.DOT_PRODUCT: cycles}, machine.dot_product, actions, read)


def _merge(op: Merge, config: AcceleratorConfig) -> Cost:
    """Weighted-sum array: a target at a time, `lanes` sources a beat, sources spread evenly over the targets."""
    formats = config.formats
    machine = attention_latencies(config)
    per_target = beats(-(-op.sources // op.targets), machine.lanes)
    cycles = op.targets * per_target * config.weighted_sum.interval_cycles(machine.lanes, op.width)
    elements = op.sources * op.width
    row_bytes = _row_bytes(op.width, formats.value_bits)
    actions = {
        (Component.VALUE_BUFFER, Action.WRITE_BIT): elements * formats.value_bits,
        (Component.VALUE_BUFFER, Action.READ_BIT): elements * formats.value_bits,
        (Component.WEIGHTED_SUM, Action.MULTIPLY): elements,
        (Component.WEIGHTED_SUM, Action.ADD): elements,
    }
    if op.divide:
        actions[Component.SOFTMAX, Action.RECIPROCAL] = op.targets
        actions[Component.SOFTMAX, Action.NORMALISE] = op.sources
    return _cost(
        config,
        {Unit.WEIGHTED_SUM: cycles},
        machine.weighted_sum,
        actions,
        {Traffic.VECTOR_READ: op.sources * row_bytes},
        {Traffic.VECTOR_WRITE: op.targets * row_bytes},
    )


def _gather(op: Gather, config: AcceleratorConfig) -> Cost:
    """Memory only: every row is read and written once."""
    size = op.rows * _row_bytes(op.width, op.bits)
    return _cost(config, {}, 1, {}, {Traffic.VECTOR_READ: size}, {Traffic.VECTOR_WRITE: size})


def _linear(maps: list[tuple[int, int, int]], config: AcceleratorConfig) -> Cost:
    """Linear maps (tokens, inputs, outputs) on both arrays; weights are read once, at the bits of the MSB plane.

    The key and value buffers hold a part of the weights; the tokens' inputs are read again for each part.
    """
    formats = config.formats
    machine = attention_latencies(config)
    weight_bits = formats.key_msb_bits
    multipliers = config.dot_product.multipliers + config.weighted_sum.multipliers
    held = 2 * config.capacity * config.max_head_dim
    macs = sum(tokens * inputs * outputs for tokens, inputs, outputs in maps)
    weights = sum(inputs * outputs for _, inputs, outputs in maps)
    read_rows = sum(
        -(-inputs * outputs // held) * tokens * _row_bytes(inputs, formats.query_bits)
        for tokens, inputs, outputs in maps
    )
    written = sum(tokens * _row_bytes(outputs, formats.query_bits) for tokens, _, outputs in maps)
    on_dot = macs * config.dot_product.multipliers // multipliers
    on_sum = macs - on_dot
    actions = {
        (Component.KEY_BUFFER, Action.WRITE_BIT): weights * weight_bits,
        (Component.KEY_BUFFER, Action.READ_BIT): on_dot * weight_bits,
        (Component.VALUE_BUFFER, Action.READ_BIT): on_sum * weight_bits,
        (Component.DOT_PRODUCT, Action.MULTIPLY): on_dot,
        (Component.DOT_PRODUCT, Action.ADD): on_dot,
        (Component.WEIGHTED_SUM, Action.MULTIPLY): on_sum,
        (Component.WEIGHTED_SUM, Action.ADD): on_sum,
    }
    busy = -(-macs // multipliers)
    return _cost(
        config,
        {Unit.DOT_PRODUCT: busy, Unit.WEIGHTED_SUM: busy},
        machine.dot_product,
        actions,
        {Traffic.WEIGHT: -(-weights * weight_bits // 8), Traffic.VECTOR_READ: read_rows},
        {Traffic.VECTOR_WRITE: written},
    )


def _scan(op: Op, config: AcceleratorConfig) -> Cost:
    """Streams of scores from the importance memory past the comparators of the second top-k engine, P a cycle."""
    parallelism = config.topk.parallelism
    if isinstance(op, Threshold):
        read, cycles, compares = op.n, beats(op.n, parallelism), op.n
    elif isinstance(op, ArgmaxRow):
        read, cycles, compares = op.rows * op.cols, op.rows * beats(op.cols, parallelism), op.rows * op.cols
    elif isinstance(op, GreedyMaxMin):
        # Each pass updates the running minimum and looks for its maximum.
        read, cycles, compares = op.k * op.n, op.k * beats(op.n, parallelism), 2 * op.k * op.n
    elif isinstance(op, Pool1d):
        read, cycles, compares = op.n, op.window * beats(op.n, parallelism), op.n * op.window
    elif isinstance(op, Search):
        # A cumulative sum, then one binary search after the other.
        steps = op.samples * op.n.bit_length()
        read, cycles, compares = op.n + steps, beats(op.n, parallelism) + steps, steps
    else:
        raise InputError("the engine has no unit for this operation", field="kind", value=op.kind)
    actions = {
        (Component.IMPORTANCE, Action.READ_BIT): read * config.formats.token_importance_bits,
        (Component.CASCADE_TOPK, Action.COMPARE): compares,
    }
    if isinstance(op, Search):
        actions[Component.IMPORTANCE, Action.ADD] = op.n
    return _cost(config, {Unit.CASCADE_TOPK: cycles}, filter_stages(parallelism) + 1, actions)
