"""Golden model of the dot-product array: exact integer sums, one narrowing to log2-unit scores."""

from __future__ import annotations

import numpy as np

from topsieve_sim.arch.formats import NumberFormats
from topsieve_sim.golden.numbers import Integers, ScoreFactor, exact_matmul, round_half_up_shift, saturate_signed


def dot_products(query: Integers, key: Integers, formats: NumberFormats) -> Integers:
    """Exact sums, int64 [..., queries, keys], of `query` [..., queries, head_dim] and `key` [..., keys, head_dim]."""
    return exact_matmul(query, np.swapaxes(key, -1, -2), formats.dot_product_bits(query.shape[-1]))


def scores(
    accumulator: Integers, factor: ScoreFactor, formats: NumberFormats, bias: Integers | None = None
) -> Integers:
    """Narrow sums to scores: times multiplier, round half up by shift, saturate; then add `bias` and saturate again.

    Parameters
    ----------
    accumulator : int64 [..., queries, keys].
    factor : scalars, or arrays that broadcast against `accumulator`.
    bias : int64 [keys] in score units (log2, `score_fraction_bits`), or None.
    """
    narrowed = saturate_signed(round_half_up_shift(accumulator * factor.multiplier, factor.shift), formats.score_bits)
    return narrowed if bias is None else saturate_signed(narrowed + bias, formats.score_bits)
