"""Registered trees and the narrowings of `topsieve_sim.golden.numbers` as logic."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from amaranth import Cat, Module, Mux, Signal, Value

from topsieve_rtl.topk.networks import registered


def registered_tree(m: Module, values: Sequence[Value], combine: Callable[[Value, Value], Value], name: str) -> Value:
    """`values` combined pair by pair, one register a level: `tree_levels(len(values))` cycles later."""
    level = 0
    terms = list(values)
    while len(terms) > 1:
        pairs = [combine(*terms[n : n + 2]) if n + 1 < len(terms) else terms[n] for n in range(0, len(terms), 2)]
        terms = [registered(m, pair, f"{name}_{level}_{n}") for n, pair in enumerate(pairs)]
        level += 1
    return terms[0]


def adder_tree(m: Module, values: Sequence[Value], name: str) -> Value:
    """The exact sum."""
    return registered_tree(m, values, lambda a, b: a + b, name)


def maximum_tree(m: Module, values: Sequence[Value], name: str) -> Value:
    """The largest."""
    return registered_tree(m, values, lambda a, b: Mux(a > b, a, b), name)


def round_half_up_shift(value: Value, shift: Value | int) -> Value:
    """`value` / 2^`shift`, halves towards plus infinity: the bit under the lowest that is kept is added to the rest."""
    doubled = (value << 1) >> shift
    return (doubled >> 1) + doubled[0]


def saturate_signed(m: Module, value: Value, bits: int) -> Value:
    """Clamp the signed `value` to two's complement of `bits`; it fits if all its bits from the kept sign on are equal."""
    if len(value) <= bits:
        return value
    whole = Signal(value.shape(), name="unclamped")
    m.d.comb += whole.eq(value)
    beyond, sign = whole[bits - 1 :], whole[-1]
    limit = Cat((~sign).replicate(bits - 1), sign)
    return Mux(beyond.any() & ~beyond.all(), limit, whole[:bits]).as_signed()


def saturate_unsigned(m: Module, value: Value, bits: int) -> Value:
    """Clamp the non-negative `value` to 2^`bits` - 1."""
    if len(value) <= bits:
        return value
    whole = Signal(value.shape(), name="unclamped")
    m.d.comb += whole.eq(value)
    return whole[:bits] | whole[bits:].any().replicate(bits)
