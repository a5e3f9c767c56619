"""What the units of the attention pipeline share when they draw cases: stalls, row lengths, beats of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topsieve_rtl.cosim import Case, Channel
from topsieve_sim.arch import AcceleratorConfig


def draw_row_lengths(config: AcceleratorConfig, generator: np.random.Generator) -> list[int]:
    """Keys of some rows: single keys, single beats, anything, whole capacity."""
    longest = int(generator.choice([1, min(config.softmax.lanes, config.capacity), config.capacity]))
    lengths = [int(n) for n in generator.integers(1, longest + 1, generator.integers(1, 10))]
    return [config.capacity if generator.random() < 1 / 16 else n for n in lengths]


def split_beats(row: Sequence[Any], lanes: int) -> Iterator[tuple[list[Any], int]]:
    """A row's beats, each with whether it is the last."""
    for start in range(0, len(row), lanes):
        yield list(row[start : start + lanes]), int(start + lanes >= len(row))


def draw_stalls(generator: np.random.Generator, beats: int, cycles: int) -> tuple[list[int], list[bool]]:
    """Arrival cycles of a source that never pauses, sometimes, or mostly; a sink likewise for about `cycles`."""
    pause = int(generator.choice([1, 2, 6, 30]))
    arrivals = np.cumsum(generator.integers(0, pause, beats) * (generator.random(beats) < 0.5)).tolist()
    share = generator.choice([1.0, 0.8, 0.4, 0.1])
    return arrivals, (generator.random(generator.integers(0, cycles + 1)) < share).tolist()


def stall_arrays(case: Case) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Arrivals of port `i` and the pattern of port `o`, as the timing functions take them."""
    return (
        np.asarray(case.sources["i"].arrival_cycles, np.int64),
        np.asarray(case.sinks["o"].ready_pattern, np.bool_),
    )


def channels(
    case: Case, entered: NDArray[np.int64], left: NDArray[np.int64], outputs: Sequence[Any]
) -> dict[str, Channel]:
    """Ports `i` and `o` as the models expect them."""
    return {
        "i": Channel(entered.tolist(), list(case.sources["i"].beats)),
        "o": Channel(left.tolist(), list(outputs)),
    }


def draw_signed(generator: np.random.Generator, bits: int, shape: Any) -> NDArray[np.int64]:
    """Two's complement numbers: all magnitudes, small ones, or only the ends of the range."""
    limit = 1 << (bits - 1)
    kind = int(generator.integers(4))
    if kind == 0:
        return generator.choice([-limit, limit - 1], shape).astype(np.int64)
    spread = limit if kind > 1 else min(limit, 4)
    return generator.integers(-spread, spread, shape)


def draw_unsigned(generator: np.random.Generator, bits: int, shape: Any) -> NDArray[np.int64]:
    """Numbers from 0 to 2^bits - 1: all magnitudes, or only the largest."""
    largest = (1 << bits) - 1
    return generator.integers(largest if generator.random() < 1 / 4 else 0, largest + 1, shape)
