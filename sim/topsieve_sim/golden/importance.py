"""Golden models of the importance accumulators: column sums for tokens, absolute sums for heads; both saturate.

All terms are non-negative, so a saturating sum does not depend on the order of its terms.
Source: specification `accelerator`, sections 1.1 and 1.2 (SpAtten, algorithm 2).
"""

from __future__ import annotations

import numpy as np

from topsieve_sim.arch.formats import NumberFormats
from topsieve_sim.golden.numbers import Integers, saturate_unsigned


def add_token_importance(total: Integers, probability: Integers, formats: NumberFormats) -> Integers:
    """`total` int64 [keys] plus the column sums of `probability` int64 [..., keys], saturating."""
    columns = probability.reshape(-1, probability.shape[-1]).sum(axis=0)
    return saturate_unsigned(total + columns, formats.token_importance_bits)


def add_head_importance(total: Integers, output: Integers, formats: NumberFormats) -> Integers:
    """`total` int64 [heads] plus the absolute sums of `output` int64 [heads, queries, head_dim], saturating."""
    return saturate_unsigned(total + np.abs(output).sum(axis=(-1, -2)), formats.head_importance_bits)
