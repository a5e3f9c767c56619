"""Rounding, saturation and plane splitting: every narrowing of the machine, each written once.

`round_half_up_shift` works on Python integers, numpy integer arrays and, through `numba.njit`, in compiled code. Widths and rules are those of `topsieve_sim.arch.formats`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topsieve_sim.arch.formats import SCORE_MULTIPLIER_BITS, NumberFormats
from topsieve_sim.errors import InputError

SCORE_SHIFT_BITS = 6
# The rounding half of a shift by 63 is not an int64; a product of 63 bits is 0 or 1 by then anyway.
MAXIMUM_SCORE_SHIFT = (1 << SCORE_SHIFT_BITS) - 2
LOG2_E = 1.0 / math.log(2.0)

Integers = NDArray[np.int64]


def round_half_up_shift(value: Any, shift: Any) -> Any:
    """`value` / 2^`shift`, rounded to the nearest integer, halves towards plus infinity; `shift` >= 0."""
    return (value + ((1 << shift) >> 1)) >> shift


def saturate_signed(value: Integers, bits: int) -> Integers:
    """Clamp to two's complement: -2^(bits-1) to 2^(bits-1) - 1."""
    return np.clip(value, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def saturate_unsigned(value: Integers, bits: int) -> Integers:
    """Clamp to 0 to 2^bits - 1."""
    return np.clip(value, 0, (1 << bits) - 1)


def symmetric_scale(values: ArrayLike, bits: int, axis: int | tuple[int, ...] | None = None) -> NDArray[np.float64]:
    """The step that maps the largest magnitude (over `axis`, kept) to 2^(bits-1) - 1; 1.0 where all values are zero."""
    largest = np.max(np.abs(np.asarray(values, np.float64)), axis=axis, keepdims=axis is not None)
    return np.where(largest > 0, largest, (1 << (bits - 1)) - 1.0) / ((1 << (bits - 1)) - 1)


def quantise(values: ArrayLike, scale: ArrayLike, bits: int) -> Integers:
    """Float to signed integer: `values` / `scale`, round half to even, saturate symmetrically to +-(2^(bits-1) - 1).

    Raises
    ------
    InputError
        a value is not finite.
    """
    steps = np.asarray(values, np.float64) / np.asarray(scale, np.float64)
    if not np.isfinite(steps).all():
        raise InputError("a value to quantise is not finite", allowed="finite numbers")
    limit = (1 << (bits - 1)) - 1
    return np.clip(np.rint(steps), -limit, limit).astype(np.int64)


def split_planes(key: Integers, lsb_bits: int) -> tuple[Integers, Integers]:
    """Signed MSB plane (arithmetic shift) and unsigned LSB plane of whole keys."""
    return key >> lsb_bits, key & ((1 << lsb_bits) - 1)


def join_planes(msb: Integers, lsb: Integers, lsb_bits: int) -> Integers:
    """The whole key of its two planes; inverse of `split_planes`."""
    return (msb << lsb_bits) | lsb


def msb_only(key: Integers, lsb_bits: int) -> Integers:
    """The key as the first pass sees it: its LSB plane read as zero."""
    return key >> lsb_bits << lsb_bits


class ScoreFactor(NamedTuple):
    """The unsigned factor `multiplier` / 2^`shift` that turns a dot product into a score; int64 scalars or [heads]."""

    multiplier: Integers
    shift: Integers


def score_factor(
    query_scale: ArrayLike, key_scale: ArrayLike, head_dim: int, formats: NumberFormats, temperature: float = 1.0
) -> ScoreFactor:
    """The factor for log2-unit scores: query step x key step x log2(e) / sqrt(head_dim) x 2^score_fraction_bits.

    The multiplier is normalised to 16 significant bits unless the shift reaches its limit of 62.

    Raises
    ------
    InputError
        the factor is not positive, or too large for a 16-bit multiplier without shift.
    """
    real = np.asarray(query_scale, np.float64) * np.asarray(key_scale, np.float64)
    real = real * (temperature * LOG2_E / math.sqrt(head_dim) * (1 << formats.score_fraction_bits))
    if not (np.isfinite(real).all() and (real > 0).all()):
        raise InputError("the score factor must be positive and finite", value=float(np.min(real)))
    _, exponent = np.frexp(real)
    shift = np.minimum(SCORE_MULTIPLIER_BITS - exponent, MAXIMUM_SCORE_SHIFT).astype(np.int64)
    multiplier = np.rint(np.ldexp(real, shift)).astype(np.int64)
    carried = multiplier == 1 << SCORE_MULTIPLIER_BITS
    multiplier = np.where(carried, multiplier >> 1, multiplier)
    shift = np.where(carried, shift - 1, shift)
    if (shift < 0).any():
        raise InputError(
            "the score factor does not fit its multiplier",
            value=float(np.max(real)),
            allowed=f"below {1 << SCORE_MULTIPLIER_BITS}",
        )
    return ScoreFactor(multiplier, shift)


# The float library uses one thread for a matrix of up to this many multiplications. Beyond, its threads cost more than
# they save on a busy machine, until there are `_THREADED_PRODUCTS` in all.
_ALONE_PRODUCTS = 1 << 18
_THREADED_PRODUCTS = 1 << 24


def exact_matmul(a: Integers, b: Integers, magnitude_bits: int) -> Integers:
    """Integer matrix product; in float64, which is faster, where `magnitude_bits` <= 53 bound every sum: it is exact."""
    alone = math.prod(a.shape[-2:]) * b.shape[-1] <= _ALONE_PRODUCTS
    if magnitude_bits <= 53 and (alone or a.size * b.shape[-1] >= _THREADED_PRODUCTS):
        return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)
    return a @ b
