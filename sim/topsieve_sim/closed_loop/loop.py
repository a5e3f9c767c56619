"""The attention unit on the DRAM model: times that are consistent with each other, found by iteration.

The attention unit's requests decide what the memory sees, and the memory's answers decide when the unit asks. Both models
are exact for given inputs of the other, and nothing in either depends on its future, so there is one consistent pair
of times; going back and forth between the two reaches it, each round from a longer exact beginning. A run that has not
settled is an error, never a result.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.closed_loop.layout import PlaneRows, accesses, place_planes
from topsieve_sim.closed_loop.memory import machine_memory, memory_ports
from topsieve_sim.dram import DramSimulator
from topsieve_sim.dram.ports import PortTimes, Streams
from topsieve_sim.dram.result import DramCounters
from topsieve_sim.timing.accounting import KEY_LSB, KEY_MSB, OUTPUT, QUERY, VALUE
from topsieve_sim.timing.attention import AttentionGroup, AttentionTimes, run_group
from topsieve_sim.timing.attention_kernel import LEFT, PICK, ROW
from topsieve_sim.timing.memory_port import MemoryPort, scripted_port

Int64 = NDArray[np.int64]

# Rounds after which a run is given up; no group of the published traces takes thirty.
ROUNDS = 500

_FETCH, _QUERY, _WRITE = range(3)


@dataclass(frozen=True)
class TokenPlaces:
    """Which rows of memory a group touches.

    tokens : rows of each head in memory. keys : int64 [keys], the live ones, ascending. queries : int64 [queries of a
    query head]. survivors : int64 [rows, kept], positions in `keys` of each row's survivors, for gathered values.
    """

    tokens: int
    keys: Int64
    queries: Int64
    survivors: Int64


@dataclass(frozen=True)
class ClosedLoop:
    """Times of one group, and what the memory did.

    moved_bytes : bytes that crossed the memory's bus, by the kinds of `timing.accounting`; whole accesses.
    rounds : how often the models were run until they agreed. script : what they agreed on.
    """

    times: AttentionTimes
    events: Int64
    counters: DramCounters
    moved_bytes: Int64
    rounds: int
    script: Script


@dataclass(frozen=True)
class _Asked:
    """One request of the attention unit: plane, key-value head, and the row whose survivors it fetches (-1: all)."""

    kind: int
    head: int
    survivors_of: int


class _Memory:
    """The memory's side: requests with their cycles in, arrivals out."""

    def __init__(self, config: AcceleratorConfig, group: AttentionGroup, places: TokenPlaces) -> None:
        self.config, self.group, self.places = config, group, places
        self.dram = machine_memory(config)
        self.ports = memory_ports(config)
        self.size = self.dram.organization.access_bytes
        shape = group.shape(config)
        bits = {"query": shape[7], "key_msb": shape[8], "key_lsb": shape[9], "value": shape[10], "output": shape[11]}
        self.rows = PlaneRows(**{name: -(-group.head_dim * width // 8) for name, width in bits.items()})
        self.query_heads = max(1, group.heads * group.queries // max(places.queries.size, 1))
        self.planes = place_planes(config, self.rows, group.heads, self.query_heads, places.tokens, self.size)
        self.made: dict[_Asked, tuple[Int64, Int64]] = {}
        row = np.arange(group.heads * group.queries)
        head, place = np.divmod(row, places.queries.size)
        self.row_head, self.row_token = head, places.queries[place]

    def accesses(self, asked: _Asked) -> tuple[Int64, Int64]:
        """Addresses of a request's accesses, and how many each beat needs from the front."""
        if asked not in self.made:
            name = {KEY_MSB: "key_msb", KEY_LSB: "key_lsb", VALUE: "value"}[asked.kind]
            tokens = self.places.keys
            if asked.survivors_of >= 0:
                tokens = tokens[self.places.survivors[asked.survivors_of]]
            addresses = self.planes[name].addresses(asked.head, tokens)
            self.made[asked] = accesses(addresses, getattr(self.rows, name), self.size, self.config.softmax.lanes)
        return self.made[asked]

    def row_accesses(self, name: str, rows: Int64) -> tuple[Int64, Int64]:
        """Accesses of query or output rows one by one, and how many each has."""
        plane, width = self.planes[name], getattr(self.rows, name)
        start = plane.base + self.row_head[rows] * plane.head_bytes + self.row_token[rows] * plane.page_bytes
        first, count = start // self.size, (start + width - 1) // self.size - start // self.size + 1
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return (np.repeat(first, count) + within) * self.size, count

    def run(
        self, asked: list[_Asked], picked: Int64, queries: tuple[Int64, Int64], outputs: tuple[Int64, Int64]
    ) -> tuple[PortTimes, Streams, DramSimulator]:
        """Requests in program order, then query and output rows as (rows, cycles) in order of cycle."""
        parts = [self.accesses(request)[0] for request in asked]
        counts = [np.array([part.size for part in parts], np.int64)]
        streams = [np.full(len(asked), _FETCH)]
        cycles = [picked + 1]
        for stream, name, (rows, at) in ((_QUERY, "query", queries), (_WRITE, "output", outputs)):
            addresses, count = self.row_accesses(name, rows)
            parts.append(addresses)
            counts.append(count)
            streams.append(np.full(rows.size, stream))
            cycles.append(at + 1)
        offset = np.concatenate(([0], np.cumsum(np.concatenate(counts))))
        table = Streams(np.concatenate(streams), np.concatenate(cycles), offset)
        writes = np.repeat(table.stream == _WRITE, np.diff(table.offset))
        memory = DramSimulator(self.dram)
        return memory.run_ports(np.concatenate(parts), writes, table, self.ports), table, memory


@dataclass(frozen=True)
class Script:
    """What the attention unit is told of its memory: cycles after each request was taken.

    arrival : int64 [beats of all requests], free : int64 [requests], query : int64 [started rows], query_free likewise;
    each has room for the most that the group can ask, with a guess where nothing was asked yet.
    """

    arrival: Int64
    free: Int64
    query: Int64
    query_free: Int64

    @classmethod
    def first(cls, config: AcceleratorConfig, group: AttentionGroup) -> Script:
        """An empty memory at its configured latency."""
        beats = -(-group.keys // config.softmax.lanes)
        requests = len((KEY_MSB, KEY_LSB, VALUE)) * group.heads
        started = 2 * group.heads * group.queries
        latency = config.memory.latency_cycles
        return cls(
            np.full(requests * beats, latency, np.int64),
            np.ones(requests, np.int64),
            np.full(started, latency, np.int64),
            np.ones(started, np.int64),
        )

    def ports(self) -> tuple[MemoryPort, MemoryPort]:
        """Fresh ports of keys and values, and of queries."""
        return (
            scripted_port(self.arrival, self.free.size, self.free),
            scripted_port(self.query, self.query.size, self.query_free),
        )

    def answered(
        self, memory: _Memory, asked: list[_Asked], picked: Int64, started: Int64, answer: PortTimes, streams: Streams
    ) -> Script:
        """The script with what the memory answered to requests taken in `picked` and queries in `started`."""
        arrival, free, query, query_free = (x.copy() for x in (self.arrival, self.free, self.query, self.query_free))
        beat = 0
        for number, request in enumerate(asked):
            back = np.maximum.accumulate(answer.back[streams.offset[number] : streams.offset[number + 1]])
            needed = memory.accesses(request)[1]
            arrival[beat : beat + needed.size] = back[needed - 1] - picked[number]
            free[number] = answer.free[number] - picked[number]
            beat += needed.size
        rows = slice(len(asked), len(asked) + started.size)
        # A query's accesses stand one after the other and it has at least one.
        back = answer.back[: streams.offset[rows.stop]]
        query[: started.size] = np.maximum.reduceat(back, streams.offset[rows]) - started
        query_free[: started.size] = answer.free[rows] - started
        return Script(arrival, free, query, query_free)

    def same(self, other: Script) -> bool:
        """Whether both say the same."""
        return all(
            np.array_equal(mine, theirs) for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)
        )


def closed_loop(
    config: AcceleratorConfig, group: AttentionGroup, places: TokenPlaces, guess: Script | None = None
) -> ClosedLoop:
    """One group on an idle machine and an idle memory.

    `guess` is where the iteration begins, such as the script of a similar group; it must have this group's room and
    changes nothing but the number of rounds.

    Raises
    ------
    InputError
        the group does not fit the machine or the memory.
    RuntimeError
        the models did not agree within `ROUNDS` rounds.
    """
    memory = _Memory(config, group, places)
    asked: list[_Asked] = []
    script = guess or Script.first(config, group)
    for rounds in range(1, ROUNDS + 1):
        port, query_port = script.ports()
        times, events = run_group(config, group, port, query_port)
        number = int(port.at[0])
        asked = [_Asked(*line) for line in port.asked[:number].tolist()]
        final = events[events[:, LEFT] >= 0]
        final = final[np.argsort(final[:, LEFT], kind="stable")]
        answer, streams, dram = memory.run(
            asked,
            port.picked[:number],
            (events[:, ROW], events[:, PICK]),
            (final[:, ROW], final[:, LEFT]),
        )
        found = script.answered(memory, asked, port.picked[:number], events[:, PICK], answer, streams)
        if found.same(script):
            moved = np.zeros(times.dram_bytes.shape[1], np.int64)
            kinds = [request.kind for request in asked] + [QUERY] * len(events) + [OUTPUT] * len(final)
            np.add.at(moved, kinds, np.diff(streams.offset) * memory.size)
            return ClosedLoop(times, events, dram.counters(), moved, rounds, script)
        script = found
    raise RuntimeError(f"attention and memory did not agree within {ROUNDS} rounds")
