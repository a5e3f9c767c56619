"""`Bigram`: a language model of token pairs counted in text, where a transform needs probabilities of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UNIGRAM_SHARE = 0.2


@dataclass(frozen=True)
class Bigram:
    """P(next | last) = 0.8 x pair frequency + 0.2 x (token frequency + 1), both normalised.

    Parameters
    ----------
    table : float64 [V, V], rows sum to one. first : float64 [V], at the start of a text.
    """

    table: NDArray[np.float64]
    first: NDArray[np.float64]

    def __call__(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """float64 [V]: distribution of the token behind `tokens`."""
        return self.table[tokens[-1]] if len(tokens) else self.first


def counted(tokens: Sequence[int], vocabulary: int) -> Bigram:
    """The model of a token sequence."""
    ids = np.asarray(tokens, np.int64)
    pairs = np.zeros((vocabulary, vocabulary))
    np.add.at(pairs, (ids[:-1], ids[1:]), 1.0)
    first: NDArray[np.float64] = np.bincount(ids, minlength=vocabulary).astype(np.float64) + 1.0
    first /= first.sum()
    sums = pairs.sum(1, keepdims=True)
    mixed = (1 - UNIGRAM_SHARE) * pairs / np.maximum(sums, 1) + UNIGRAM_SHARE * first
    return Bigram(np.where(sums > 0, mixed, first), first)
