"""The plane fetcher's models: bursts are legal and cover the rows, and every beat crosses when the recurrences say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.plane_fetch_cases import FetchCase, cases, shapes
from topsieve_sim.golden.plane_fetch import Burst, FetchCommand, PlaneFetchShape, plan_fetch
from topsieve_sim.stepped.plane_fetch import PlaneFetcher, run_plane_fetch
from topsieve_sim.timing.plane_fetch import MemoryTimes, plane_fetch_times


def check(case: FetchCase) -> None:
    log = run_plane_fetch(
        PlaneFetcher(case.shape),
        case.commands,
        case.command_arrivals,
        case.indices,
        case.index_arrivals,
        case.memory,
        case.address_ready,
        case.delays,
        case.gaps,
        case.ready,
        len(case.beats),
    )
    assert log.bursts == case.plan.bursts
    assert log.outputs == case.beats
    assert log.command_cycles == case.times.command.tolist()
    assert log.index_cycles == case.times.indices.tolist()
    assert log.address_cycles == case.times.address.tolist()
    assert log.data_cycles == case.times.data.tolist()
    assert log.output_cycles == case.times.left.tolist()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_fast_timing_equals_the_stepped_fetcher(data):
    check(data.draw(cases(data.draw(shapes()))))


# Many rows in a word: words of the next command wait behind beats of this one.
WIDE = PlaneFetchShape(2, (3,), 128, 14, stride_bits=12, max_rows=20, max_elements=9, max_burst_words=1, buffer_words=5)


@settings(max_examples=60, deadline=None)
@given(cases(WIDE, max_rows=20))
def test_words_wait_for_the_beats_of_earlier_commands(case):
    check(case)


@pytest.mark.full
@settings(max_examples=3000, deadline=None)
@given(st.data())
def test_fast_timing_equals_the_stepped_fetcher_at_length(data):
    check(data.draw(cases(data.draw(shapes()), max_rows=20)))


def wanted_bytes(case: FetchCase) -> list[int]:
    """Address of every byte of every row, in order, by the definition of a row."""
    following, mask = iter(case.indices), (1 << case.shape.address_bits) - 1
    found = []
    for command in case.commands:
        for row in range(command.rows):
            start = command.base + (next(following) if command.gather else row) * command.stride
            found += [start + n & mask for n in range(case.shape.row_bytes(command.elements, command.plane))]
    return found


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_bursts_are_legal_and_their_words_hold_the_rows_and_nothing_else(data):
    case = data.draw(cases(data.draw(shapes())))
    plan, size = case.plan, case.shape.data_bytes
    addresses = []
    for burst in plan.bursts:
        assert 1 <= burst.words <= case.shape.max_burst_words
        assert burst.address % size == 0
        assert burst.address // 4096 == (burst.address + burst.words * size - 1) // 4096
        addresses += [burst.address + n * size for n in range(burst.words)]
    delivered = [
        address + skip + n
        for address, skip, count in zip(addresses, plan.word_skip.tolist(), plan.word_bytes.tolist(), strict=True)
        for n in range(count)
    ]
    assert delivered == wanted_bytes(case)
    assert plan.beat_bits.sum() == 8 * len(delivered)
    assert plan.run_bursts.sum() == len(plan.bursts)
    assert plan.run_bursts.size == plan.row_starts.sum()


def shape(**changes) -> PlaneFetchShape:
    fields = {"lanes": 8, "element_bits": (6, 4, 12), "data_bits": 64, "max_burst_words": 16, "buffer_words": 32}
    return PlaneFetchShape(**{**fields, **changes})


@pytest.mark.parametrize(
    ("merge_bytes", "expected"),
    [
        (0, [Burst(0x1000, 6), Burst(0x1030, 6), Burst(0x1060, 6), Burst(0x10C0, 6)]),
        (96, [Burst(0x1000, 12), Burst(0x1060, 6), Burst(0x10C0, 6)]),
        (512, [Burst(0x1000, 16), Burst(0x1080, 2), Burst(0x10C0, 6)]),
    ],
)
def test_rows_of_48_bytes_share_bursts_when_they_touch(merge_bytes, expected):
    """64 elements of 6 bits; the tokens 0, 1, 2 touch, token 4 stands alone."""
    command = FetchCommand(0x1000, 48, 4, 64, plane=0, gather=1)
    assert plan_fetch(shape(merge_bytes=merge_bytes), [command], [0, 1, 2, 4]).bursts == expected


def test_a_row_across_4_kb_is_two_bursts():
    command = FetchCommand(0x0FE8, 48, 1, 64, plane=0, gather=0)
    assert plan_fetch(shape(), [command], []).bursts == [Burst(0x0FE8, 3), Burst(0x1000, 3)]


@pytest.mark.parametrize("plane", [0, 1, 2])
@pytest.mark.parametrize("stride", [0, 7])
def test_a_fast_memory_and_a_ready_consumer_leave_no_gap(plane, stride):
    """In the long run the narrower of bus and output is busy in every cycle, for whole words."""
    rows, elements = 200, 64
    size = shape().row_bytes(elements, plane)
    command = FetchCommand(0, size + 8 * stride, rows, elements, plane, gather=0)
    unit = shape(max_outstanding=8, buffer_words=64, merge_bytes=0 if stride else 128)
    plan = plan_fetch(unit, [command], [])
    nothing = np.zeros(0, np.int64)
    memory = MemoryTimes(
        np.zeros(0, np.bool_), np.full(plan.burst_words.size, 5), np.zeros(plan.word_bytes.size, np.int64)
    )
    times = plane_fetch_times(unit, plan, np.zeros(1, np.int64), nothing, memory, np.zeros(0, np.bool_))
    words, beats = plan.word_bytes.size, plan.beat_bits.size
    start_and_end = 30
    assert max(words, beats) <= times.left[-1] <= max(words, beats) + start_and_end


def test_parameters_are_checked():
    with pytest.raises(ValueError, match="data_bits must be a power of two from 8 to 1024, got 48"):
        shape(data_bits=48)
    with pytest.raises(ValueError, match="max_burst_words must be from 1 to 256, got 257"):
        shape(max_burst_words=257, buffer_words=512)
    with pytest.raises(ValueError, match="buffer_words must be from 16 to 65536, got 8"):
        shape(buffer_words=8)
    with pytest.raises(ValueError, match="element_bits must be from 1 to 64, got 0"):
        shape(element_bits=(8, 0))
    with pytest.raises(ValueError, match="1 indices for commands that take 0"):
        plan_fetch(shape(), [], [4])


def test_latencies_of_a_lone_row():
    """Command to address 7 cycles, word to the beat that it completes 4."""
    plan = plan_fetch(shape(), [FetchCommand(0, 64, 1, 64, plane=0, gather=0)], [])
    none, start = np.zeros(0, np.bool_), np.zeros(1, np.int64)
    memory = MemoryTimes(none, start, np.zeros(plan.word_bytes.size, np.int64))
    times = plane_fetch_times(shape(), plan, start, start[:0], memory, none)
    assert (times.command[0], times.address[0], times.data[0], times.left[0]) == (0, 7, 8, 12)
