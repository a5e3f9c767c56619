"""Hypothesis strategies for the top-k engine: packets, what must come of them, and the arguments of the timing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from topsieve_sim.arch import SelectorKind
from topsieve_sim.golden.topk import SELECTOR_CODES, PacketStatus, packet_status, top_k
from topsieve_sim.timing.topk import TopKTimes, packet_rows, row_survivors, select_cycles, topk_times

SEED = 0xACE1


@dataclass(frozen=True)
class Shape:
    """Parameters of an engine."""

    kind: SelectorKind
    lanes: int
    load_lanes: int
    score_bits: int
    capacity: int
    banks: int = 2
    radix_bits: int = 4
    seed: int = SEED


@dataclass
class Traffic:
    """Load beats of a packet sequence with arrivals and stalls, and the models' answer."""

    shape: Shape
    packets: list[tuple[list[list[int]], int]]
    """Per packet its beats and k."""
    arrival_cycles: list[int]
    ready_pattern: list[bool]
    beats: list[tuple] = field(init=False)
    outputs: list[tuple] = field(init=False)
    times: TopKTimes = field(init=False)

    def __post_init__(self) -> None:
        shape = self.shape
        self.beats, self.outputs = [], []
        counts, rows, selecting, survivors = [], [], [], []
        for chunks, k in self.packets:
            for place, chunk in enumerate(chunks):
                padding = (0,) * (shape.load_lanes - len(chunk))
                self.beats.append((tuple(chunk) + padding, len(chunk), int(place == len(chunks) - 1), k))
            counts.append(len(chunks))
            status = packet_status([len(chunk) for chunk in chunks], k, shape.capacity, shape.load_lanes)
            scores = np.array([score for chunk in chunks for score in chunk], np.int64)
            if status is not PacketStatus.OK:
                scores, k = scores[:0], 0
            cycles, kth, quota, _ = select_cycles(
                scores, k, SELECTOR_CODES[shape.kind], shape.lanes, shape.score_bits, shape.seed, shape.radix_bits
            )
            selecting.append(cycles)
            rows.append(packet_rows(scores.size, shape.lanes))
            survivors.append(row_survivors(scores, kth, quota, shape.lanes))
            self.outputs += survivor_beats(scores, top_k(scores, k), status, shape.lanes)
        self.times = topk_times(
            np.array(self.arrival_cycles, np.int64),
            np.array(counts, np.int64),
            np.array(rows, np.int64),
            np.array(selecting, np.int64),
            np.concatenate(survivors),
            np.array(self.ready_pattern, np.bool_),
            shape.lanes,
            shape.banks,
        )


def survivor_beats(scores: np.ndarray, kept: np.ndarray, status: PacketStatus, lanes: int) -> list[tuple]:
    """Output beats of a packet: full but for the last, which carries the status."""
    elements = [(int(scores[index]), int(index)) for index in kept]
    rows = [elements[start : start + lanes] for start in range(0, len(elements), lanes)] or [[]]
    return [
        (
            tuple(row + [(0, 0)] * (lanes - len(row))),
            len(row),
            int(place == len(rows) - 1),
            int(status) if place == len(rows) - 1 else 0,
        )
        for place, row in enumerate(rows)
    ]


def shapes(
    kinds: tuple[SelectorKind, ...] = tuple(SelectorKind), max_lanes: int = 32, max_radix_bits: int = 6
) -> st.SearchStrategy[Shape]:
    """Any engine up to `max_lanes` lanes and a few rows of capacity."""

    @st.composite
    def draw_shape(draw: st.DrawFn) -> Shape:
        lanes = 1 << draw(st.integers(0, max_lanes.bit_length() - 1))
        return Shape(
            kind=draw(st.sampled_from(kinds)),
            lanes=lanes,
            load_lanes=lanes >> draw(st.integers(0, lanes.bit_length() - 1)),
            # 32 bits is an importance sum.
            score_bits=draw(st.integers(1, 14) | st.just(32)),
            capacity=draw(st.integers(2, min(10 * lanes, 200))) if lanes > 1 else draw(st.integers(2, 30)),
            banks=draw(st.integers(1, 2)),
            radix_bits=draw(st.integers(1, max_radix_bits)),
            seed=draw(st.sampled_from([SEED, 1, 0xFFFF]) | st.integers(1, 0xFFFF)),
        )

    return draw_shape()


@st.composite
def score_lists(draw: st.DrawFn, n: int, score_bits: int) -> list[int]:
    """Random, few-valued, equal, ascending or descending scores."""
    limit = (1 << score_bits) - 1
    kind = draw(st.sampled_from(["random", "random", "two", "equal", "ascending", "descending"]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "equal":
        return [int(generator.integers(0, limit + 1))] * n
    if kind == "two":
        values = generator.integers(0, limit + 1, 2)[generator.integers(0, 2, n)]
    else:
        values = generator.integers(0, limit + 1, n)
    if kind in ("ascending", "descending"):
        values = np.sort(values)[:: 1 if kind == "ascending" else -1]
    return values.tolist()


@st.composite
def packets(draw: st.DrawFn, shape: Shape) -> tuple[list[list[int]], int]:
    """One packet: mostly legal, sometimes over capacity, ragged or with k out of range; sometimes with an empty tail."""
    capacity = shape.capacity
    n = draw(st.sampled_from([0, 1, capacity, capacity + 1]) | st.integers(0, capacity))
    k = draw(st.sampled_from([0, 1, min(n, capacity), capacity, capacity + 1]) | st.integers(0, min(n, capacity)))
    scores = draw(score_lists(n, shape.score_bits))
    width = shape.load_lanes
    chunks = [scores[start : start + width] for start in range(0, n, width)] or [[]]
    if n and n % width == 0 and draw(st.booleans()):
        chunks.append([])
    if len(chunks) > 1 and draw(st.integers(0, 9)) == 0:
        chunks[draw(st.integers(0, len(chunks) - 2))].pop()
    return chunks, k


@st.composite
def traffic(draw: st.DrawFn, shape: Shape, max_packets: int = 4) -> Traffic:
    """A packet sequence, back to back or with gaps, against a stalling sink."""
    drawn = draw(st.lists(packets(shape), min_size=1, max_size=max_packets))
    beats = sum(len(chunks) for chunks, _ in drawn)
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0, 0, 1, 4]))
    arrival = np.cumsum(generator.integers(0, spread + 1, beats)).tolist()
    runs = draw(st.lists(st.tuples(st.booleans(), st.integers(1, 25)), max_size=20))
    return Traffic(shape, drawn, arrival, [flag for flag, length in runs for _ in range(length)])
