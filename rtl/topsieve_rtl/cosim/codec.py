"""Payloads as Python values: an integer for a plain shape, a tuple in field order for a struct or an array."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amaranth import Shape
from amaranth.hdl import ShapeLike
from amaranth.lib import data


def pack(shape: ShapeLike, value: Any) -> int:
    """Bits of `value` as an unsigned integer.

    Raises
    ------
    ValueError
        `value` does not fit `shape`.
    """
    if isinstance(shape, data.Layout):
        fields = list(shape)
        if isinstance(value, Mapping):
            if set(value) != {key for key, _ in fields}:
                raise ValueError(f"fields {sorted(map(str, value))} do not match {shape!r}")
            values: Sequence[Any] = [value[key] for key, _ in fields]
        else:
            values = value
        if len(values) != len(fields):
            raise ValueError(f"{len(values)} values for the {len(fields)} fields of {shape!r}")
        bits = 0
        for (_, field), part in zip(fields, values, strict=True):
            bits |= pack(field.shape, part) << field.offset
        return bits
    plain = Shape.cast(shape)
    number = int(value)
    low, high = (-(1 << plain.width - 1), 1 << plain.width - 1) if plain.signed else (0, 1 << plain.width)
    if not low <= number < high:
        raise ValueError(f"{number} does not fit {plain!r}")
    return number & ((1 << plain.width) - 1)


def unpack(shape: ShapeLike, bits: int) -> Any:
    """The Python value of `bits`; the inverse of `pack`, with tuples for structs and arrays."""
    if isinstance(shape, data.Layout):
        return tuple(
            unpack(field.shape, bits >> field.offset & ((1 << Shape.cast(field.shape).width) - 1)) for _, field in shape
        )
    plain = Shape.cast(shape)
    if plain.signed and plain.width and bits >> plain.width - 1:
        bits -= 1 << plain.width
    return bits


def pack_masked(shape: ShapeLike, value: Any) -> tuple[int, int]:
    """Bits of `value` and the mask of the bits that matter; None, in any place, stands for bits of any value."""
    if value is None:
        return 0, 0
    if isinstance(shape, data.Layout):
        bits = mask = 0
        for (_, field), part in zip(shape, value, strict=True):
            part_bits, part_mask = pack_masked(field.shape, part)
            bits |= part_bits << field.offset
            mask |= part_mask << field.offset
        return bits, mask
    return pack(shape, value), (1 << Shape.cast(shape).width) - 1


def field_places(shape: ShapeLike, path: str = "", offset: int = 0) -> Iterator[tuple[str, int, Shape]]:
    """Path, lowest bit and shape of every plain field, in the order of the layout."""
    if isinstance(shape, data.Layout):
        for key, field in shape:
            name = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}" if path else str(key)
            yield from field_places(field.shape, name, offset + field.offset)
    else:
        yield path, offset, Shape.cast(shape)


def only_valid_lanes(beat: tuple[Any, ...]) -> tuple[Any, ...]:
    """View of a `topsieve_rtl.stream.Beat`: lanes at and beyond `count` become None, since they may hold anything."""
    lanes, count, last = beat
    return tuple(lane if place < count else None for place, lane in enumerate(lanes)), count, last
