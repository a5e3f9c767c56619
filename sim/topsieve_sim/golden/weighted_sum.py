"""Golden model of the weighted-sum array: exact sums of probability x value, one narrowing."""

from __future__ import annotations

from topsieve_sim.arch.formats import NumberFormats
from topsieve_sim.golden.numbers import Integers, exact_matmul, round_half_up_shift, saturate_signed


def weighted_sum(probability: Integers, value: Integers, formats: NumberFormats) -> Integers:
    """Attention outputs, int64 [..., queries, head_dim], in units of the value's step.

    `probability` is int64 [..., queries, keys] (zero at pruned keys), `value` int64 [..., keys, head_dim]. The sum is
    exact; it is shifted right by `probability_bits` with round half up and saturated to `output_bits`.
    """
    total = exact_matmul(probability, value, formats.output_accumulator_bits(probability.shape[-1]))
    return saturate_signed(round_half_up_shift(total, formats.probability_bits), formats.output_bits)
