"""Selection cycles of the top-k engines: from real scores where there are any, else from drawn ones.

Drawn scores are independent and uniform over the whole unsigned range of the score format, from numpy's PCG64 seeded
with the run's seed: distinct values in random order, the workload of the published Monte-Carlo table (specification
`accelerator`, section 2.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.arch import AcceleratorConfig, SelectorKind
from topsieve_sim.golden.topk_select import bitonic_cycles, quick_select, radix_cycles

NO_ROWS = np.zeros(0, np.int64)

# Samples of one length and count: quick-select's cycles spread by a quarter of their mean, so the standard error of this mean is 2 to 3 %.
DRAWN_ROWS = 128


@dataclass(frozen=True)
class Selections:
    """Times of the selections of one descriptor, int64 [rows] each.

    cycles : of the selector, command to result. flush : 1 where the survivors need one output cycle more.
    """

    cycles: NDArray[np.int64]
    flush: NDArray[np.int64]


@njit(cache=True)
def _overflows(scores: NDArray[np.int64], kth: int, quota: int, kept: int, parallelism: int) -> bool:
    """`golden.attention.flush_cycles` of one row whose threshold and tie quota are known."""
    border = (scores.size - 1) // parallelism * parallelism
    survivors = 0
    tied = 0
    for value in scores[border:]:
        survivors += value > kth
        tied += value == kth
    if tied > 0:
        for value in scores[:border]:
            quota -= value == kth
        survivors += min(max(quota, 0), tied)
    before = kept - survivors
    waiting = (before - 1) % parallelism + 1 if before > 0 else 0
    return waiting + survivors > parallelism


class Borders(NamedTuple):
    """What a selection finds, whatever the engine, int64 [rows]: the smallest kept score, and how many equal to it stay.

    -1 and 0 where everything is kept.
    """

    kth: NDArray[np.int64]
    quota: NDArray[np.int64]


@njit(cache=True)
def _find_borders(
    scores: NDArray[np.int64],
    sizes: NDArray[np.int64],
    kept: NDArray[np.int64],
    kth: NDArray[np.int64],
    quota: NDArray[np.int64],
) -> None:
    begin = 0
    for row in range(sizes.size):
        mine = scores[begin : begin + sizes[row]]
        begin += sizes[row]
        k = min(kept[row], mine.size)
        if 0 < k < mine.size:
            kth[row] = np.partition(mine, mine.size - k)[mine.size - k]
            quota[row] = k - np.count_nonzero(mine > kth[row])


def borders(sizes: NDArray[np.int64], kept: NDArray[np.int64], scores: NDArray[np.int64]) -> Borders:
    """Of rows as `selections` takes them."""
    found = Borders(np.full(sizes.size, -1, np.int64), np.zeros(sizes.size, np.int64))
    _find_borders(scores, sizes, kept, found.kth, found.quota)
    return found


@njit(cache=True)
def _select_rows(
    scores: NDArray[np.int64],
    sizes: NDArray[np.int64],
    kept: NDArray[np.int64],
    quick: bool,
    parallelism: int,
    seed: int,
    border_kth: NDArray[np.int64],
    border_quota: NDArray[np.int64],
    cycles: NDArray[np.int64],
    flush: NDArray[np.int64],
) -> None:
    no_rounds = np.empty((0, 3), np.int64)
    begin = 0
    for row in range(sizes.size):
        mine = scores[begin : begin + sizes[row]]
        begin += sizes[row]
        k = min(kept[row], mine.size)
        kth, quota = -1, 0  # everything is kept
        if not quick:
            kth, quota = border_kth[row], border_quota[row]
        elif 0 < k < mine.size:
            cycles[row], kth, quota, _ = quick_select(mine, k, parallelism, seed, no_rounds)
        if k > 0:
            flush[row] = _overflows(mine, kth, quota, k, parallelism)


def selections(
    config: AcceleratorConfig,
    sizes: NDArray[np.int64],
    kept: NDArray[np.int64],
    scores: NDArray[np.int64],
    score_bits: int,
    known: Borders | None = None,
) -> Selections:
    """Times of a top-k engine that keeps the `kept` largest of each row.

    Parameters
    ----------
    sizes, kept : int64 [rows], scores in a row and how many of them stay.
    scores : int64 [sum of sizes], the rows one after the other, 0 to 2^score_bits - 1.
    known : `borders` of the rows, where another engine has found them before; quick-select finds its own.
    """
    topk = config.topk
    cycles, flush = np.ones(sizes.size, np.int64), np.zeros(sizes.size, np.int64)
    quick = topk.selector is SelectorKind.QUICK
    found = Borders(NO_ROWS, NO_ROWS) if quick else known or borders(sizes, kept, scores)
    _select_rows(scores, sizes, kept, quick, topk.parallelism, topk.seed, *found, cycles, flush)
    if not quick:
        rows = np.flatnonzero((kept > 0) & (kept < sizes))
        # Equal lengths and counts take equally long.
        shapes, which = np.unique(sizes[rows] << 32 | kept[rows], return_inverse=True)
        taken = [
            radix_cycles(shape >> 32, topk.parallelism, score_bits, topk.radix_bits)
            if topk.selector is SelectorKind.RADIX
            else bitonic_cycles(shape >> 32, shape & 0xFFFFFFFF, topk.parallelism)
            for shape in shapes.tolist()
        ]
        cycles[rows] = np.array(taken, np.int64)[which]
    return Selections(cycles, flush)


def drawn_selections(
    config: AcceleratorConfig,
    sizes: list[NDArray[np.int64]],
    kept: list[int],
    score_bits: int,
    generator: np.random.Generator,
) -> list[Selections]:
    """`selections` on drawn scores for several descriptors at once; `kept` is the same for all rows of one.

    Rows of equal length and count take turns on at most `DRAWN_ROWS` drawn rows: beyond that many samples, further draws
    of the same distribution say nothing new about it.
    """
    if not sizes:
        return []
    lengths = [size.size for size in sizes]
    shapes, which = np.unique(np.stack([np.concatenate(sizes), np.repeat(kept, lengths)]), axis=1, return_inverse=True)
    cycles, flush = np.empty(which.size, np.int64), np.empty(which.size, np.int64)
    for shape, (n, k) in enumerate(shapes.T.tolist()):
        rows = np.flatnonzero(which == shape)
        drawn = min(rows.size, DRAWN_ROWS)
        scores = _drawn(drawn * n, score_bits, generator)
        chosen = selections(config, np.full(drawn, n), np.full(drawn, k), scores, score_bits)
        turns = np.arange(rows.size) % drawn
        cycles[rows], flush[rows] = chosen.cycles[turns], chosen.flush[turns]
    bounds = np.cumsum(lengths).tolist()
    return [
        Selections(cycles[stop - length : stop], flush[stop - length : stop])
        for stop, length in zip(bounds, lengths, strict=True)
    ]


def _drawn(count: int, bits: int, generator: np.random.Generator) -> NDArray[np.int64]:
    # A power of two of random bits, cut to the width: as uniform as a bounded draw and several times as fast.
    if bits <= 16:
        return (generator.integers(0, 1 << 16, count, np.uint16) >> (16 - bits)).astype(np.int64)
    return generator.integers(0, 1 << bits, count, np.int64)


def quantised_scores(scores: NDArray[np.float32], bits: int) -> NDArray[np.int64]:
    """Scores as unsigned integers of `bits` bits, each row stretched over the whole range; order is kept.

    Only the order of scores matters to a selector, so the offset and the step of a row are free. Scores are finite; a
    `Trace` holds no others.
    """
    values = np.asarray(scores, np.float64)
    lowest = values.min(axis=-1, keepdims=True)
    span = values.max(axis=-1, keepdims=True) - lowest
    steps = np.rint((values - lowest) / np.where(span > 0, span, 1.0) * float((1 << bits) - 1))
    return np.asarray(steps, np.int64)
