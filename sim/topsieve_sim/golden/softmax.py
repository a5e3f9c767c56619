"""Golden model of the softmax unit: maximum, exponentials, exact sum, reciprocal, probabilities; integers only.

With m the largest score of the row, every exponential is 2^(score - m) <= 1, so nothing overflows whatever the scores;
the exponential of the maximum is exactly 1.0, so the largest probability is known from the reciprocal alone.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.arch.formats import NumberFormats
from topsieve_sim.golden.numbers import Integers
from topsieve_sim.golden.numbers import round_half_up_shift as _round_half_up_shift
from topsieve_sim.golden.tables import exponential_table, reciprocal_table

round_half_up_shift = njit(cache=True)(_round_half_up_shift)


class SoftmaxParameters(NamedTuple):
    """Widths and tables of one softmax unit, as compiled code takes them.

    `sum_bits` is the width to which a row sum is left-aligned: it holds every sum and addresses the table.
    """

    score_bits: int
    score_fraction_bits: int
    exponential_bits: int
    exponential_table_bits: int
    exponential_base: NDArray[np.int64]
    exponential_drop: NDArray[np.int64]
    sum_bits: int
    reciprocal_bits: int
    reciprocal_table_bits: int
    reciprocal_base: NDArray[np.int64]
    reciprocal_drop: NDArray[np.int64]
    probability_bits: int


@cache
def softmax_parameters(formats: NumberFormats, capacity: int) -> SoftmaxParameters:
    """Parameters of the unit for rows of up to `capacity` keys."""
    exponential = exponential_table(formats)
    reciprocal = reciprocal_table(formats)
    return SoftmaxParameters(
        formats.score_bits,
        formats.score_fraction_bits,
        formats.exponential_bits,
        formats.exponential_table_bits,
        exponential.base,
        exponential.drop,
        max(formats.row_sum_bits(capacity), formats.reciprocal_table_bits + 2),
        formats.reciprocal_bits,
        formats.reciprocal_table_bits,
        reciprocal.base,
        reciprocal.drop,
        formats.probability_bits,
    )


@njit(cache=True)
def exponential_of(distance: int, unit: SoftmaxParameters) -> int:
    """2^-distance in units of 2^-(exponential_bits - 1), for `distance` >= 0 in score steps.

    The distance splits in octaves, a table segment and a position inside it; the interpolated mantissa is shifted right
    by the octaves with one round half up. From `exponential_bits` octaves on the result is 0.
    """
    octaves = distance >> unit.score_fraction_bits
    if octaves >= unit.exponential_bits:
        return 0
    position_bits = unit.score_fraction_bits - unit.exponential_table_bits
    inside = distance & ((1 << unit.score_fraction_bits) - 1)
    segment = inside >> position_bits
    position = inside & ((1 << position_bits) - 1)
    mantissa = (unit.exponential_base[segment] << position_bits) - unit.exponential_drop[segment] * position
    return int(round_half_up_shift(mantissa, octaves + position_bits))


@njit(cache=True)
def bit_length(value: int) -> int:
    """Bits of a non-negative integer, like `int.bit_length`."""
    bits = 0
    while value > 0:
        value >>= 1
        bits += 1
    return bits


@njit(cache=True)
def reciprocal_of(row_sum: int, unit: SoftmaxParameters) -> tuple[int, int]:
    """Mantissa and exponent of 1 / `row_sum` = mantissa / 2^(reciprocal_bits - 1) / 2^(exponent - 1).

    The sum (>= 1) is left-aligned by its leading one; table and linear interpolation, round half up. `exponent` is the
    sum's bit length.
    """
    position_bits = unit.sum_bits - 1 - unit.reciprocal_table_bits
    exponent = bit_length(row_sum)
    aligned = row_sum << (unit.sum_bits - exponent)
    segment = (aligned >> position_bits) - (1 << unit.reciprocal_table_bits)
    position = aligned & ((1 << position_bits) - 1)
    mantissa = (unit.reciprocal_base[segment] << position_bits) - unit.reciprocal_drop[segment] * position
    return int(round_half_up_shift(mantissa, position_bits)), exponent


@njit(cache=True)
def probability_of(exponential: int, mantissa: int, exponent: int, unit: SoftmaxParameters) -> int:
    """Product with the reciprocal, round half up, saturate to 2^probability_bits - 1."""
    shift = exponent + (unit.reciprocal_bits - 2 - unit.probability_bits)
    return min(int(round_half_up_shift(exponential * mantissa, shift)), (1 << unit.probability_bits) - 1)


@njit(cache=True)
def largest_probability_of(mantissa: int, exponent: int, unit: SoftmaxParameters) -> int:
    """The row's largest probability before any is emitted: that of the exponential 1.0."""
    return int(probability_of(1 << (unit.exponential_bits - 1), mantissa, exponent, unit))


@njit(cache=True)
def _softmax_rows(
    score: NDArray[np.int64],
    valid: NDArray[np.bool_],
    unit: SoftmaxParameters,
    probability: NDArray[np.int64],
    largest: NDArray[np.int64],
) -> None:
    masked = valid.size > 0
    for row in range(score.shape[0]):
        keys = score.shape[1]
        maximum = -(1 << (unit.score_bits - 1))
        for i in range(keys):
            if score[row, i] > maximum and not (masked and not valid[row, i]):
                maximum = score[row, i]
        total = 0
        for i in range(keys):
            term = 0
            if not (masked and not valid[row, i]):
                term = exponential_of(maximum - score[row, i], unit)
            probability[row, i] = term
            total += term
        mantissa, exponent = reciprocal_of(total, unit)
        for i in range(keys):
            probability[row, i] = probability_of(probability[row, i], mantissa, exponent, unit)
        largest[row] = largest_probability_of(mantissa, exponent, unit)


def softmax(
    score: Integers, formats: NumberFormats, capacity: int, valid: NDArray[np.bool_] | None = None
) -> tuple[Integers, Integers]:
    """Probabilities int64 [..., keys] and the largest of each row int64 [...], of `score` int64 [..., keys].

    `valid` (bool, broadcasts against `score`) marks the keys that belong to the row; at least one in each row. The
    others get probability 0 and take no part. Rows are at most `capacity` keys.
    """
    rows = np.ascontiguousarray(score, np.int64).reshape(-1, score.shape[-1])
    mask = np.zeros((0, 0), np.bool_)
    if valid is not None:
        mask = np.ascontiguousarray(np.broadcast_to(valid, score.shape)).reshape(rows.shape)
    probability = np.empty_like(rows)
    largest = np.empty(rows.shape[0], np.int64)
    _softmax_rows(rows, mask, softmax_parameters(formats, capacity), probability, largest)
    return probability.reshape(score.shape), largest.reshape(score.shape[:-1])
