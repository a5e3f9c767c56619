"""The expander: survivors back into the lanes that they came from, the zero eliminator run backwards."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Cat, Const, Module, Signal, Value


def expander_columns(lanes: int) -> int:
    """Inputs of an expander to `lanes` lanes: the next power of two."""
    return 1 << (lanes - 1).bit_length()


def expand(m: Module, values: Sequence[Value], lanes: Sequence[Value]) -> list[Value]:
    """Each of `values` at the place that `lanes` names; 0 where none is. Combinational, log2(columns) layers.

    A column without an element holds value 0 and lane 0. The elements stand in columns that follow each other,
    cyclically, and their lanes ascend. Layer by layer, from the highest bit on, an element takes the side that its
    lane's bit names. Two elements never want one place: after the layer of bit b they would agree in the lane's bits
    from b on, so their lanes are less than 2^b apart, and in the column's bits below b, so their columns, and with them
    their lanes, are at least 2^b apart.

    Parameters
    ----------
    values, lanes : one a column; their number is a power of two.
    """
    columns = len(values)
    if columns & (columns - 1) or columns != len(lanes):
        raise ValueError(f"values and lanes must be as many, a power of two, got {columns} and {len(lanes)}")
    width = len(values[0])
    entries = [
        _wire(m, Cat(value, lane), f"entry_{n}") for n, (value, lane) in enumerate(zip(values, lanes, strict=True))
    ]
    for layer in reversed(range(columns.bit_length() - 1)):
        sides = [
            [
                _wire(m, entry & (entry[width + layer] == side).replicate(len(entry)), f"side_{layer}_{side}_{n}")
                for side in (0, 1)
            ]
            for n, entry in enumerate(entries)
        ]
        entries = [
            _wire(m, sides[n][n >> layer & 1] | sides[n ^ (1 << layer)][n >> layer & 1], f"layer_{layer}_{n}")
            for n in range(columns)
        ]
    return [entry[:width] for entry in entries]


def _wire(m: Module, value: Value, name: str) -> Signal:
    """`value` under a name, so that what uses it twice does not hold it twice."""
    wire = Signal(len(value), name=name)
    m.d.comb += wire.eq(value)
    return wire


def lane_of(index: Value, place: Value, lanes: int) -> tuple[Value, Value]:
    """Whether element `index` of a row belongs to beat `place`, and its lane there, in log2(columns) bits."""
    bits = expander_columns(lanes).bit_length() - 1
    if 1 << bits == lanes:
        return index[bits:] == place, index[:bits] if bits else Const(0, 0)
    offset = (index - place * lanes).as_unsigned()
    return offset < lanes, offset[:bits]
