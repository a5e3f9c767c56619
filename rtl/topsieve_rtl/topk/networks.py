"""Registered networks over the lanes of a row: delay lines, prefix counts, population counts.

Two layers of a network share a register rank; the number of ranks comes from `topsieve_sim.golden.topk_latency`, so
the models and the hardware have the same latency.
"""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Cat, Module, Signal, Value, unsigned
from amaranth.hdl import ShapeLike

from topsieve_sim.golden.topk_latency import levels, network_ranks, popcount_ranks


def registered(m: Module, value: Value, name: str, shape: ShapeLike | None = None) -> Signal:
    """`value` one cycle later."""
    register = Signal(value.shape() if shape is None else shape, name=name)
    m.d.sync += register.eq(value)
    return register


def delayed(m: Module, value: Value, cycles: int, name: str) -> Value:
    """`value` `cycles` cycles later."""
    for stage in range(cycles):
        value = registered(m, value, f"{name}_{stage}")
    return value


def layers_per_rank(lanes: int) -> list[range]:
    """The log2(lanes) layers of a network, split over its register ranks."""
    depth, ranks = levels(lanes), network_ranks(lanes)
    return [range(2 * rank, min(2 * rank + 2, depth)) for rank in range(ranks)]


def prefix_counts(m: Module, bits: Sequence[Value], name: str) -> list[Value]:
    """Inclusive prefix counts of `bits`, `network_ranks` cycles later (Kogge-Stone)."""
    lanes = len(bits)
    width = unsigned(lanes.bit_length())
    counts: list[Value] = list(bits)
    for rank, layers in enumerate(layers_per_rank(lanes)):
        for layer in layers:
            step = 1 << layer
            counts = [counts[lane] + counts[lane - step] if lane >= step else counts[lane] for lane in range(lanes)]
        counts = [registered(m, count, f"{name}_{rank}_{lane}", width) for lane, count in enumerate(counts)]
    return counts


def sum_tree(values: Sequence[Value]) -> Value:
    """Balanced sum of `values`."""
    terms = list(values)
    while len(terms) > 1:
        terms = [terms[i] + terms[i + 1] if i + 1 < len(terms) else terms[i] for i in range(0, len(terms), 2)]
    return terms[0]


def population_count(m: Module, bits: Value, name: str) -> Value:
    """How many of `bits` are set, `popcount_ranks` cycles later."""
    lanes = len(bits)
    width = unsigned(lanes.bit_length())
    if popcount_ranks(lanes) == 1:
        return registered(m, sum_tree(list(bits)), f"{name}_sum", width)
    parts = [
        registered(m, sum_tree(list(bits[start : start + 16])), f"{name}_part_{start}") for start in range(0, lanes, 16)
    ]
    return registered(m, sum_tree(parts), f"{name}_sum", width)


def lowest_set(bits: Value) -> Value:
    """One-hot of the lowest set bit; 0 if none is."""
    return (bits & (~bits + 1))[: len(bits)]


def one_hot_select(choice: Value, values: Sequence[Value]) -> Value:
    """The value whose bit of `choice` is set, or 0."""
    width = len(values[0])
    terms = [value & chosen.replicate(width) for chosen, value in zip(choice, values, strict=True)]
    while len(terms) > 1:
        terms = [terms[i] | terms[i + 1] if i + 1 < len(terms) else terms[i] for i in range(0, len(terms), 2)]
    return terms[0]


def lanes_below(count: Value, lanes: int) -> Value:
    """Bit per lane: the lane is under `count`."""
    return Cat(count > lane for lane in range(lanes))
