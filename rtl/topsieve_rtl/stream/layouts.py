"""Payload layouts that several units share."""

from __future__ import annotations

from amaranth import Shape, signed, unsigned
from amaranth.hdl import ShapeLike
from amaranth.lib import data


class Element(data.StructLayout):
    """A score and the place it came from.

    Parameters
    ----------
    score_bits : width of the score, at least 1.
    index_bits : width of the unsigned index, at least 1.
    score_signed : whether the score is two's complement.
    """

    def __init__(self, score_bits: int, index_bits: int, *, score_signed: bool = False) -> None:
        if score_bits < 1 or index_bits < 1:
            raise ValueError(f"score_bits and index_bits must be at least 1, got {score_bits} and {index_bits}")
        super().__init__(
            {"score": signed(score_bits) if score_signed else unsigned(score_bits), "index": unsigned(index_bits)}
        )


class Beat(data.StructLayout):
    """`lanes` elements of which the first `count` are valid; `last` closes a packet.

    Parameters
    ----------
    element : shape of one lane.
    lanes : elements per beat, at least 1.
    """

    def __init__(self, element: ShapeLike, lanes: int) -> None:
        Shape.cast(element)
        if lanes < 1:
            raise ValueError(f"lanes must be at least 1, got {lanes}")
        super().__init__({"lanes": data.ArrayLayout(element, lanes), "count": range(lanes + 1), "last": unsigned(1)})
