"""How quick-select draws its pivots: one LFSR, three samples per partition, the sample whose rank is nearest.

Each row of `P` elements that streams past offers one element of each side, the first masked lane at or above a random
lane (or the first masked lane of all). Three sample slots per side keep the first three offers; a later offer replaces
one random slot with a probability that halves whenever the number of offers doubles, so that every part of the
partition stays about equally likely. The pivot is the largest, middle or smallest sample, whichever lies nearest to
the wanted rank (proportion-from-3: Martínez, Panario and Viola, "Adaptive sampling for quickselect", SODA 2004).
"""

from __future__ import annotations

import numpy as np
from numba import njit

# Galois form of x^16 + x^14 + x^13 + x^11 + 1, shifted right; its period is 65535.
LFSR_BITS = 16
LFSR_POLYNOMIAL = 0xB400
# Steps per row; coprime with the period, and far enough that successive rows share no lane bits.
LFSR_STEPS = 8
# Fields of the state: bits 0-6 the lane, 7-8 the slot, 9-15 the chance of replacement.
LANE_BITS = 7
SLOT_SHIFT = 7
CHANCE_SHIFT = 9
CHANCE_BITS = 7
SAMPLES = 3
# Offers are counted up to here; from then on a replacement has the chance 1 in 2^CHANCE_BITS.
OFFERS_LIMIT = 1 << (CHANCE_BITS + 2)


def _steps(state: int) -> int:
    for _ in range(LFSR_STEPS):
        state = (state >> 1) ^ (LFSR_POLYNOMIAL if state & 1 else 0)
    return state


# The bits that `LFSR_STEPS` steps shift out, and what they feed back: one look-up instead of so many steps.
_FED_BACK = np.array([_steps(low) for low in range(1 << LFSR_STEPS)], np.int64)


@njit(cache=True)
def lfsr_next(state: int) -> int:
    """The LFSR's state one row later; `state` is 1 to 0xFFFF."""
    return (state >> LFSR_STEPS) ^ int(_FED_BACK[state & ((1 << LFSR_STEPS) - 1)])


@njit(cache=True)
def sample_slot(state: int, offers: int) -> int:
    """Slot that an offer replaces after `offers` earlier ones on its side, or -1 to drop it."""
    if offers < SAMPLES:
        return offers
    chance = state >> CHANCE_SHIFT
    bit = 1
    while bit < 1 << CHANCE_BITS and offers >= 4 * bit:
        if chance & bit:
            return -1
        bit <<= 1
    slot = state >> SLOT_SHIFT & 3
    return 1 if slot == 3 else slot


@njit(cache=True)
def choose_pivot(first: int, second: int, third: int, offers: int, target: int, size: int) -> int:
    """Pivot for the `target`-th largest of `size` elements from up to three samples; `offers` is at least 1."""
    if offers == 1:
        return first
    if offers == 2:
        return max(first, second) if 2 * target <= size else min(first, second)
    high = max(first, second, third)
    low = min(first, second, third)
    if 4 * target <= size:
        return high
    if 4 * target > 3 * size:
        return low
    return first + second + third - high - low
