"""`RandomScore`: seeded random numbers, the baseline every method must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op

MASK_64 = (1 << 64) - 1
GOLDEN_GAMMA = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB


def signed(word: int) -> int:
    """A 64-bit word as the signed number that torch stores it as."""
    word &= MASK_64
    return word - (1 << 64) if word >> 63 else word


def splitmix64(words: Tensor) -> Tensor:
    """The SplitMix64 output function (Steele, Lea and Flood, 2014) on int64, modulo 2^64."""

    def shifted(value: Tensor, bits: int) -> Tensor:
        return (value >> bits) & ((1 << (64 - bits)) - 1)

    words = (words ^ shifted(words, 30)) * signed(MIX_1)
    words = (words ^ shifted(words, 27)) * signed(MIX_2)
    return words ^ shifted(words, 31)


@dataclass(frozen=True)
class RandomScore:
    """Uniform in [0, 1), a function of seed, layer and original position alone.

    So a sequence gets the same scores alone, in a padded batch and on every device; the sequences of one batch share
    them.

    Parameters
    ----------
    seed : added to `Context.seed`.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset()

    seed: int = 0

    def score(self, context: Context) -> Tensor:
        start = torch.tensor(signed((self.seed + context.seed) * GOLDEN_GAMMA), device=context.positions.device)
        stream = splitmix64(start + signed((context.layer + 1) * MIX_1))
        words = splitmix64(stream + (context.positions + 1) * signed(GOLDEN_GAMMA))
        return ((words >> 11) & ((1 << 53) - 1)).to(torch.float64) / (1 << 53)

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        return ()
