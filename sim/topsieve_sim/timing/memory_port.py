"""What answers the attention unit's requests: the ideal memory, a plane fetcher on an AXI4 port, or a script.

A request is a number of rows for one bank. A port takes requests in program order, each from the cycle in which it is
offered on; it says in which cycle it took it (*picked*) and when each beat of the bank arrives. No answer depends on a
later request, so the attention kernel can ask as it goes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.golden.plane_fetch import (
    PLANNED_BEATS,
    PLANNED_KINDS,
    FetchNumbers,
    FetchPlan,
    PlaneFetchShape,
    empty_plan,
    fetch_numbers,
    plan_command,
    plan_room,
)
from topsieve_sim.timing.accounting import BUSY, INPUT, MEMORY, MEMORY_WAIT, account
from topsieve_sim.timing.memory import fetch_rows
from topsieve_sim.timing.plane_fetch import BURSTS, FetchState, fetch_state, run_command, take_command

# Kinds of port.
IDEAL, FETCHER, SCRIPTED = range(3)
# Places in `MemoryPort.at`: requests taken; the cycle from which the next one can be taken; the cycle after everything
# asked for has come; arrivals read from a script; the accounting's cursor.
REQUESTS, FREE, SERVED, SCRIPTED_BEATS, CURSOR = range(5)

NO_CYCLES = np.zeros(0, np.int64)
NO_STALLS = np.zeros(0, np.bool_)


class MemoryPort(NamedTuple):
    """One port and its running state; made by `ideal_port`, `fetcher_port` or `scripted_port`, used once."""

    kind: int
    bytes_per_cycle: int
    latency_cycles: int
    ready: NDArray[np.bool_]
    delay: NDArray[np.int64]
    gap: NDArray[np.int64]
    numbers: FetchNumbers
    plan: FetchPlan
    filled: NDArray[np.int64]
    state: FetchState
    script_arrival: NDArray[np.int64]
    script_free: NDArray[np.int64]
    picked: NDArray[np.int64]
    """int64 [requests], the cycle in which each request was taken, as far as there is room."""
    asked: NDArray[np.int64]
    """int64 [requests, 3], plane, head and row whose survivors are fetched (-1: none) of each request, likewise."""
    at: NDArray[np.int64]


class Room(NamedTuple):
    """How much a fetcher port must be able to note: at most so many requests, rows, words and output beats."""

    requests: int
    rows: int
    words: int
    beats: int


_NO_ROOM = Room(0, 0, 0, 0)
_NO_SHAPE = PlaneFetchShape(lanes=1, element_bits=(1,), data_bits=8)
# What ports without a fetcher carry in its place; nothing reads or writes it.
_NO_FETCHER = fetch_numbers(_NO_SHAPE), empty_plan(*_NO_ROOM), fetch_state(*_NO_ROOM)


def _port(
    kind: int,
    *,
    bytes_per_cycle: int = 1,
    latency_cycles: int = 0,
    shape: PlaneFetchShape = _NO_SHAPE,
    room: Room = _NO_ROOM,
    ready: NDArray[np.bool_] = NO_STALLS,
    delay: NDArray[np.int64] = NO_CYCLES,
    gap: NDArray[np.int64] = NO_CYCLES,
    script_arrival: NDArray[np.int64] = NO_CYCLES,
    script_free: NDArray[np.int64] = NO_CYCLES,
) -> MemoryPort:
    numbers, plan, state = _NO_FETCHER
    if kind == FETCHER:
        numbers, plan, state = fetch_numbers(shape), empty_plan(*room), fetch_state(*room)
    return MemoryPort(
        kind=kind,
        bytes_per_cycle=bytes_per_cycle,
        latency_cycles=latency_cycles,
        ready=ready,
        delay=delay,
        gap=gap,
        numbers=numbers,
        plan=plan,
        filled=np.zeros(PLANNED_KINDS, np.int64),
        state=state,
        script_arrival=script_arrival,
        script_free=script_free,
        picked=np.full(room.requests, -1, np.int64),
        asked=np.full((room.requests, 3), -1, np.int64),
        at=np.zeros(5, np.int64),
    )


def ideal_port(bytes_per_cycle: int, latency_cycles: int, ready: NDArray[np.bool_] = NO_STALLS) -> MemoryPort:
    """`topsieve_sim.timing.memory`: one request at a time; `ready` bool [cycles], in which cycles it serves a word."""
    return _port(IDEAL, bytes_per_cycle=bytes_per_cycle, latency_cycles=latency_cycles, ready=ready)


def no_port() -> MemoryPort:
    """Stands for queries that are there at once."""
    return _port(IDEAL)


def fetcher_port(
    shape: PlaneFetchShape,
    room: Room,
    latency_cycles: int,
    ready: NDArray[np.bool_] = NO_STALLS,
    delay: NDArray[np.int64] = NO_CYCLES,
    gap: NDArray[np.int64] = NO_CYCLES,
) -> MemoryPort:
    """A plane fetcher whose output never stalls, and the memory behind it.

    Parameters
    ----------
    latency_cycles : from the cycle after a burst's address handshake to its first word.
    ready : bool [cycles], in which cycles the memory takes an address; always beyond the end.
    delay, gap : int64 [bursts] and [words], extra cycles before a burst's first word and before a word; 0 beyond the end.
    """
    return _port(FETCHER, latency_cycles=latency_cycles, shape=shape, room=room, ready=ready, delay=delay, gap=gap)


def scripted_port(arrival: NDArray[np.int64], requests: int, free: NDArray[np.int64] = NO_CYCLES) -> MemoryPort:
    """Answers from outside; which requests were taken, and when, stand in `asked` and `picked` afterwards.

    Whoever times a memory of another kind iterates: script, issue cycles, that memory's answers, script, until nothing
    changes. A fetcher in front of such a memory iterates with `fetcher_port` and its `delay` instead.

    Parameters
    ----------
    arrival : int64 [beats of all requests], cycles from a request's being taken to the arrival of the last word of each of
        its beats, requests in program order; beats beyond the end arrive at once.
    requests : how many there are at most.
    free : int64 [requests], cycles from a request's being taken until the next one can be; default: the next cycle.
    """
    return _port(SCRIPTED, script_arrival=arrival, script_free=free, room=Room(requests, 0, 0, 0))


def row_room(shape: PlaneFetchShape, requests: int, rows: int, elements: int, plane: int) -> Room:
    """Room for `requests` requests of `rows` rows of `elements` elements each."""
    words, beats = plan_room(fetch_numbers(shape), rows, elements, plane)
    return Room(requests, requests * rows, requests * words, requests * beats)


def total_room(rooms: list[Room]) -> Room:
    """Room for all of `rooms`."""
    return Room(*(sum(column) for column in zip(*rooms, strict=True)))


@njit(cache=True)
def restart(port: MemoryPort) -> None:
    """An ideal port as it was before its first request."""
    port.at[:] = 0


@njit(cache=True)
def request(
    port: MemoryPort,
    offered: int,
    rows: int,
    elements: int,
    row_bits: int,
    beat_rows: int,
    plane: int,
    base: int,
    stride: int,
    gather: bool,
    indices: NDArray[np.int64],
    arrival: NDArray[np.int64],
    table: NDArray[np.int64],
) -> tuple[int, int]:
    """The next request: the cycle in which it is taken, and its bytes.

    Parameters
    ----------
    offered : cycle from which it is offered.
    rows, elements, row_bits : rows, elements and bits of a row.
    beat_rows : rows of a beat of the bank; `arrival[i]` becomes the cycle in which the last of beat i arrives.
    plane, base, stride, gather, indices : the fetch command; the ideal memory and a script do not look at them.
    table : int64 [UNITS, CAUSES], gets the memory's cycles; empty: nobody asks.
    """
    at = port.at
    groups = (rows + beat_rows - 1) // beat_rows
    number = at[REQUESTS]
    at[REQUESTS] += 1
    if port.kind == IDEAL:
        free = at[FREE]
        picked = max(free, offered)
        ended, words, size = fetch_rows(
            picked, rows, row_bits, beat_rows, port.bytes_per_cycle, port.latency_cycles, port.ready, arrival
        )
        if table.size > 0:
            ended = account(table, MEMORY, free, picked + 1, ended - words, ended - words, words)
        at[FREE] = ended
        at[SERVED] = ended
        at[CURSOR] = ended
        return int(picked), int(size)
    size = rows * ((row_bits + 7) // 8)
    if port.kind == SCRIPTED:
        picked = max(at[FREE], offered)
        at[FREE] = picked + 1
        if number < port.script_free.size:
            at[FREE] = picked + max(1, port.script_free[number])
        for i in range(groups):
            arrival[i] = picked + 1
            if at[SCRIPTED_BEATS] < port.script_arrival.size:
                arrival[i] = picked + max(1, port.script_arrival[at[SCRIPTED_BEATS]])
            at[SCRIPTED_BEATS] += 1
            at[SERVED] = max(at[SERVED], arrival[i] + 1)
        if table.size > 0:
            begin = max(at[CURSOR], picked + 1)
            ended = max(begin, at[SERVED])
            table[MEMORY, INPUT] += begin - at[CURSOR]
            table[MEMORY, BUSY] += ended - begin
            at[CURSOR] = ended
    else:
        picked = take_command(port.state, offered)
        first_beat = port.filled[PLANNED_BEATS]
        plan_command(port.numbers, base, stride, rows, elements, plane, gather, indices, port.plan, port.filled)
        # Indices are offered one a cycle from the cycle after the handshake on; the fetcher's own order does the rest.
        offers = np.full(indices.size if gather else 0, picked + 1)
        first_burst = port.state.at[BURSTS]
        memory = (port.ready, port.delay, port.gap)
        run_command(port.numbers, port.plan, port.state, offers, memory, port.latency_cycles, NO_STALLS)
        row_beats = (port.filled[PLANNED_BEATS] - first_beat) // rows
        for i in range(groups):
            arrival[i] = port.state.left[first_beat + min((i + 1) * beat_rows, rows) * row_beats - 1]
        at[SERVED] = max(at[SERVED], arrival[groups - 1] + 1)
        if table.size > 0:
            for burst in range(first_burst, port.state.at[BURSTS]):
                # The port asks or waits from the cycle in which AR is offered to the burst's last word.
                begin = max(at[CURSOR], port.state.issued[burst] + 1)
                words = port.plan.burst_words[burst]
                ended = port.state.answered[burst] + 1
                table[MEMORY, INPUT] += begin - at[CURSOR]
                table[MEMORY, BUSY] += words
                table[MEMORY, MEMORY_WAIT] += ended - begin - words
                at[CURSOR] = ended
    if number < port.picked.size:
        port.picked[number] = picked
    return int(picked), int(size)
