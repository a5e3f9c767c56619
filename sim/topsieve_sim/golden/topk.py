"""Top-k by its definition: keep the largest, the lowest index wins ties, survivors ascend."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topsieve_sim.golden.topk_select import BITONIC, QUICK, RADIX, SELECTOR_CODES, select_cycles

__all__ = [
    "BITONIC",
    "QUICK",
    "RADIX",
    "SELECTOR_CODES",
    "PacketStatus",
    "packet_status",
    "select_cycles",
    "threshold_of",
    "top_k",
]


class PacketStatus(IntEnum):
    """What the engine reports with a packet's last beat; anything but OK comes without survivors."""

    OK = 0
    OVER_CAPACITY = 1
    K_OUT_OF_RANGE = 2
    RAGGED = 3
    """A beat before the last one was not full, or a beat claimed more lanes than it has."""


def top_k(scores: ArrayLike, k: int) -> NDArray[np.int64]:
    """Ascending indices of the k largest scores; the lowest index wins ties.

    Parameters
    ----------
    scores : [n], any ordered dtype.
    k : how many to keep; k >= n keeps all.
    """
    values = np.asarray(scores)
    order = np.argsort(values[::-1], kind="stable")[::-1]
    return np.sort((values.size - 1 - order)[: max(k, 0)]).astype(np.int64)


def threshold_of(scores: ArrayLike, k: int, score_bits: int = 63) -> tuple[int, int]:
    """The k-th largest score and how many scores equal to it are kept (the tie quota).

    k <= 0 gives (2^score_bits - 1, 0), which keeps nothing; k >= n gives (0, n), which keeps all.
    """
    values = np.asarray(scores)
    if k <= 0:
        return (1 << score_bits) - 1, 0
    if k >= values.size:
        return 0, int(values.size)
    kth = np.partition(values, values.size - k)[values.size - k]
    return int(kth), k - int(np.count_nonzero(values > kth))


def packet_status(counts: ArrayLike, k: int, capacity: int, lanes: int) -> PacketStatus:
    """Status of a packet of beats with `counts` valid lanes each, of which `k` elements are wanted."""
    beats = np.asarray(counts)
    if np.any(beats > lanes) or np.any(beats[:-1] != lanes):
        return PacketStatus.RAGGED
    if int(beats.sum()) > capacity:
        return PacketStatus.OVER_CAPACITY
    if not 0 <= k <= capacity:
        return PacketStatus.K_OUT_OF_RANGE
    return PacketStatus.OK
