"""Hypothesis strategies for the plane fetcher: parameters, commands, a memory with its delays, and the models' answer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from topsieve_sim.golden.plane_fetch import (
    FetchBeat,
    FetchCommand,
    FetchPlan,
    PlaneFetchShape,
    fetch_beats,
    plan_fetch,
)
from topsieve_sim.timing.plane_fetch import MemoryTimes, PlaneFetchTimes, plane_fetch_times


@dataclass(frozen=True)
class Contents:
    """A memory's bytes, from its address and a seed, and the responses other than OKAY by word number modulo 32."""

    data_bytes: int
    seed: int
    responses: dict[int, int]

    def __call__(self, address: int) -> tuple[int, int]:
        word = bytes(self.byte(address + n) for n in range(self.data_bytes))
        return int.from_bytes(word, "little"), self.responses.get(address // self.data_bytes % 32, 0)

    def byte(self, address: int) -> int:
        """One byte: a multiplicative hash, so that neighbours differ."""
        return ((address + self.seed) * 2654435761 >> 13) & 0xFF


@dataclass
class FetchCase:
    """Commands, indices, arrivals and stalls, and what the golden model and the timing function say of them."""

    shape: PlaneFetchShape
    commands: list[FetchCommand]
    indices: list[int]
    command_arrivals: list[int]
    index_arrivals: list[int]
    memory: Contents
    address_ready: list[bool]
    gap_choices: list[int]
    ready: list[bool]
    plan: FetchPlan = field(init=False)
    beats: list[FetchBeat] = field(init=False)
    delays: list[int] = field(init=False)
    gaps: list[int] = field(init=False)
    times: PlaneFetchTimes = field(init=False)

    def __post_init__(self) -> None:
        self.plan = plan_fetch(self.shape, self.commands, self.indices)
        self.beats = fetch_beats(self.shape, self.commands, self.indices, self.memory)
        choices = self.gap_choices
        self.delays = [3 * choices[(5 * n + 1) % len(choices)] for n in range(self.plan.burst_words.size)]
        self.gaps = [max(0, choices[n % len(choices)] - 2) for n in range(self.plan.word_bytes.size)]
        self.times = plane_fetch_times(
            self.shape,
            self.plan,
            np.array(self.command_arrivals, np.int64),
            np.array(self.index_arrivals, np.int64),
            MemoryTimes(
                np.array(self.address_ready, np.bool_),
                np.array(self.delays, np.int64),
                np.array(self.gaps, np.int64),
            ),
            np.array(self.ready, np.bool_),
        )


@st.composite
def shapes(draw: st.DrawFn) -> PlaneFetchShape:
    """Small parameters of every kind."""
    max_burst_words = draw(st.sampled_from([1, 2, 3, 4, 7, 16]))
    return PlaneFetchShape(
        lanes=draw(st.integers(1, 6) | st.just(8)),
        element_bits=tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=3))),
        data_bits=draw(st.sampled_from([8, 16, 32, 64, 128])),
        address_bits=draw(st.sampled_from([14, 20, 32])),
        id_bits=draw(st.integers(1, 4)),
        stride_bits=12,
        max_rows=draw(st.sampled_from([20, 32])),
        max_elements=draw(st.sampled_from([9, 16, 33])),
        max_burst_words=max_burst_words,
        max_outstanding=draw(st.integers(1, 4)),
        buffer_words=max_burst_words + draw(st.integers(0, 8)),
        merge_bytes=draw(st.sampled_from([0, 8, 40, 200])),
    )


def cycles(count: int, spread: int = 4) -> st.SearchStrategy[list[int]]:
    """Ascending arrival cycles."""
    gaps = st.lists(st.integers(0, spread), min_size=count, max_size=count)
    return gaps.map(lambda values: np.cumsum(values).tolist() if values else [])


def patterns(max_cycles: int = 120) -> st.SearchStrategy[list[bool]]:
    """When somebody is ready, with long stalls likely."""
    runs = st.lists(st.tuples(st.booleans(), st.integers(1, 15)), max_size=max_cycles // 8)
    return runs.map(lambda pairs: [flag for flag, length in pairs for _ in range(length)])


@st.composite
def fetch_commands(draw: st.DrawFn, shape: PlaneFetchShape, max_rows: int) -> tuple[FetchCommand, list[int]]:
    """A command and its indices: rows may touch, overlap, be empty, and cross 4 kB and the end of the address space."""
    plane = draw(st.integers(0, len(shape.element_bits) - 1))
    elements = draw(st.integers(0, shape.max_elements))
    size = shape.row_bytes(elements, plane)
    stride = draw(st.just(size) | st.sampled_from([size + 1, max(size - 1, 0), 64, 4096 - size]) | st.integers(0, 300))
    page = draw(st.integers(0, (1 << shape.address_bits) - 1)) & -4096
    base = draw(st.just(page) | st.just(page + 4096 - 3 * size // 2) | st.integers(0, (1 << shape.address_bits) - 1))
    gather = draw(st.integers(0, 1))
    indices: list[int] = []
    rows = draw(st.integers(0, min(max_rows, shape.max_rows)))
    if gather:
        indices = sorted(draw(st.sets(st.integers(0, min(2 * max_rows, shape.max_rows - 1)), max_size=rows)))
        rows = len(indices)
    mask = (1 << shape.address_bits) - 1
    return FetchCommand(base & mask, stride & 0xFFF, rows, elements, plane, gather), indices


@st.composite
def cases(draw: st.DrawFn, shape: PlaneFetchShape, max_commands: int = 5, max_rows: int = 10) -> FetchCase:
    """A case of a given shape."""
    drawn = draw(st.lists(fetch_commands(shape, max_rows), max_size=max_commands))
    commands = [command for command, _ in drawn]
    indices = [index for _, listed in drawn for index in listed]
    faulty = st.dictionaries(st.integers(0, 31), st.sampled_from([1, 2, 3]), max_size=2)
    return FetchCase(
        shape,
        commands,
        indices,
        draw(cycles(len(commands), 20)),
        draw(cycles(len(indices))),
        Contents(shape.data_bytes, draw(st.integers(0, 999)), draw(st.just({}) | faulty)),
        draw(patterns()),
        draw(st.lists(st.sampled_from([0, 0, 1, 2, 3, 9]), min_size=1, max_size=9)),
        draw(patterns()),
    )
