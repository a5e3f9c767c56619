"""The two function tables of the softmax, generated once for golden model and RTL.

Each table of 2^t segments holds `base` (the value at the segment's left end) and `drop` (how far the value falls over
the segment), both rounded to the nearest integer; a value inside a segment is base - drop * position, linearly.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch.formats import NumberFormats


class SegmentTable(NamedTuple):
    """`base` and `drop`, int64 [segments]; both non-negative, base descending."""

    base: NDArray[np.int64]
    drop: NDArray[np.int64]


def _segments(ends: NDArray[np.float64]) -> SegmentTable:
    corners = np.rint(ends).astype(np.int64)
    table = SegmentTable(corners[:-1].copy(), corners[:-1] - corners[1:])
    table.base.setflags(write=False)
    table.drop.setflags(write=False)
    return table


@cache
def exponential_table(formats: NumberFormats) -> SegmentTable:
    """2^-x on [0, 1), scaled by 2^(exponential_bits - 1); exact at both ends."""
    segments = 1 << formats.exponential_table_bits
    return _segments(np.exp2(-np.arange(segments + 1) / segments) * float(1 << (formats.exponential_bits - 1)))


@cache
def reciprocal_table(formats: NumberFormats) -> SegmentTable:
    """1/x on [1, 2), scaled by 2^(reciprocal_bits - 1); exact at both ends."""
    segments = 1 << formats.reciprocal_table_bits
    return _segments(float(1 << (formats.reciprocal_bits - 1)) / (1 + np.arange(segments + 1) / segments))
