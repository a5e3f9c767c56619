"""Selection cycles of the top-k engines: from real scores where there are any, else from drawn ones.

Drawn scores are independent and uniform over the whole unsigned range of the score format, from numpy's PCG64 seeded
with the run's seed: distinct values in random order, the workload of the published Monte-Carlo table (specification
`accelerator`, section 2.3).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig, SelectorKind
from topsieve_sim.errors import InputError
from topsieve_sim.golden.topk_select import bitonic_cycles, quick_select, radix_cycles


@njit(cache=True)
def _quick_cycles(
    scores: NDArray[np.int64],
    offsets: NDArray[np.int64],
    kept: NDArray[np.int64],
    parallelism: int,
    seed: int,
    cycles: NDArray[np.int64],
) -> None:
    no_rounds = np.empty((0, 3), np.int64)
    for row in range(kept.size):
        begin, end = offsets[row], offsets[row + 1]
        if 0 < kept[row] < end - begin:
            cycles[row] = quick_select(scores[begin:end], kept[row], parallelism, seed, no_rounds)[0]


def select_cycles(
    config: AcceleratorConfig,
    sizes: NDArray[np.int64],
    kept: NDArray[np.int64],
    scores: NDArray[np.int64] | None,
    score_bits: int,
    generator: np.random.Generator,
) -> NDArray[np.int64]:
    """Cycles of the selector for each row, int64 [rows]; 1 where nothing is to be selected.

    Parameters
    ----------
    sizes, kept : int64 [rows], scores in a row and how many to keep.
    scores : int64 [sum of sizes], the rows one after the other, 0 to 2^score_bits - 1; None draws them.
    """
    cycles = np.ones(sizes.size, np.int64)
    if config.topk.selector is SelectorKind.QUICK:
        offsets = np.zeros(sizes.size + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        if scores is None:
            scores = _drawn(int(offsets[-1]), score_bits, generator)
        _quick_cycles(scores, offsets, kept, config.topk.parallelism, config.topk.seed, cycles)
        return cycles
    for row in np.flatnonzero((kept > 0) & (kept < sizes)):
        n, k = int(sizes[row]), int(kept[row])
        if config.topk.selector is SelectorKind.RADIX:
            cycles[row] = radix_cycles(n, config.topk.parallelism, score_bits, config.topk.radix_bits)
        else:
            cycles[row] = bitonic_cycles(n, k, config.topk.parallelism)
    return cycles


def _drawn(count: int, bits: int, generator: np.random.Generator) -> NDArray[np.int64]:
    # A power of two of random bits, cut to the width: as uniform as a bounded draw and several times as fast.
    if bits <= 16:
        return (generator.integers(0, 1 << 16, count, np.uint16) >> (16 - bits)).astype(np.int64)
    return generator.integers(0, 1 << bits, count, np.int64)


def quantised_scores(scores: NDArray[np.float32], bits: int) -> NDArray[np.int64]:
    """Scores as unsigned integers of `bits` bits, each row stretched over the whole range; order is kept.

    Only the order of scores matters to a selector, so the offset and the step of a row are free.

    Raises
    ------
    InputError
        a score is not finite.
    """
    values = np.asarray(scores, np.float64)
    if not np.isfinite(values).all():
        raise InputError("a score is not finite", field="topk.scores", allowed="finite numbers")
    lowest = values.min(axis=-1, keepdims=True)
    span = values.max(axis=-1, keepdims=True) - lowest
    steps = np.rint((values - lowest) / np.where(span > 0, span, 1.0) * float((1 << bits) - 1))
    return np.asarray(steps, np.int64)
