"""What a group of attention asks of its memory, as commands of the memory's ports, and what was asked before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.closed_loop.layout import REGION_BYTES, PlaneRows, accesses, place_planes
from topsieve_sim.closed_loop.memory import machine_memory, memory_ports
from topsieve_sim.dram.port_program import PortProgram
from topsieve_sim.dram.ports import PortTimes
from topsieve_sim.timing.accounting import KEY_LSB, KEY_MSB, OUTPUT, QUERY, VALUE
from topsieve_sim.timing.attention import AttentionGroup
from topsieve_sim.timing.termination_group import TerminationGroup

Int64 = NDArray[np.int64]
Group = AttentionGroup | TerminationGroup

# The stream of output rows; requests are stream 0 and queries stream 1.
_WRITES = 2


@dataclass(frozen=True)
class TokenPlaces:
    """Which rows of memory a group touches.

    tokens : rows of each head in memory. keys : int64 [keys], the live ones, ascending. queries : int64 [queries of a
    query head]. survivors : int64 [rows, kept], positions in `keys` of each row's survivors, for gathered values; where keys
    end early, of each head's candidates, as many as it has.
    """

    tokens: int
    keys: Int64
    queries: Int64
    survivors: Int64 | tuple[Int64, ...]


@dataclass(frozen=True)
class Transfers:
    """What crossed the ports, in core cycles. Commands are the requests for keys and values, then queries, then output rows.

    requests : int64 [requests, 3], plane, key-value head, and the row whose survivors are fetched (-1: all keys).
    taken : int64 [commands], when the machine asked. offset : int64 [commands + 1], into the accesses.
    issued, back : int64 [accesses], see `dram.ports.PortTimes`.
    """

    requests: Int64
    taken: Int64
    offset: Int64
    issued: Int64
    back: Int64


class Asked(NamedTuple):
    """What a group asks of its memory, in program order, without the cycles.

    requests : int64 [requests, 3], plane, key-value head, and the row whose survivors are fetched (-1: all keys).
    queries, outputs : int64 [rows], rows in order of cycle.
    """

    requests: Int64
    queries: Int64
    outputs: Int64

    def same(self, other: Asked) -> bool:
        return all(np.array_equal(mine, theirs) for mine, theirs in zip(self, other, strict=True))


@dataclass(frozen=True)
class History:
    """What a memory has answered already: commands with their accesses and cycles, and where the next operands lie.

    cycle : in which the next group begins. base : byte address of its planes. addresses, is_write : [accesses]. stream, counts,
    ready : int64 [commands].
    """

    cycle: int
    base: int
    addresses: Int64
    is_write: NDArray[np.bool_]
    stream: Int64
    counts: Int64
    ready: Int64


def nothing_yet() -> History:
    none = np.zeros(0, np.int64)
    return History(0, 0, none, none.astype(np.bool_), none, none, none)


@dataclass(frozen=True)
class Commands:
    """What is asked, as commands of the memory's ports: requests, then queries, then outputs.

    before : what the memory has answered before them. addresses, is_write : of their accesses. stream, offset : their own.
    kinds : int64 [commands]. needed : int64 [beats of all requests], accesses from a request's front that a beat needs.
    beats : int64 [requests].
    """

    asked: Asked
    program: PortProgram
    before: History
    addresses: Int64
    is_write: NDArray[np.bool_]
    stream: Int64
    offset: Int64
    kinds: Int64
    needed: Int64
    beats: Int64

    def run(self, taken: Int64) -> PortTimes:
        """Answers to commands taken in the cycles `taken`, counted from where the history ends."""
        before = self.before
        if before.ready.size == 0:
            return self.program.run(taken + 1)
        times = self.program.run(np.concatenate((before.ready, taken + 1 + before.cycle)))
        commands, accesses = before.ready.size, before.addresses.size
        free, issued, back = times.free[commands:], times.issued[accesses:], times.back[accesses:]
        return PortTimes(free - before.cycle, issued - before.cycle, back - before.cycle)


class GroupMemory:
    """The memory's side: requests with their cycles in, arrivals out."""

    def __init__(self, config: AcceleratorConfig, group: Group, places: TokenPlaces, before: History) -> None:
        self.config, self.group, self.places, self.before = config, group, places, before
        self.dram = machine_memory(config)
        self.ports = memory_ports(config)
        self.size = self.dram.organization.access_bytes
        self.rows = PlaneRows(*(-(-group.head_dim * width // 8) for width in _row_bits(config, group)))
        self.query_heads = max(1, group.heads * group.queries // max(places.queries.size, 1))
        self.planes = place_planes(config, self.rows, group.heads, self.query_heads, places.tokens, self.size)
        row = np.arange(group.heads * group.queries)
        head, place = np.divmod(row, places.queries.size)
        self.row_head, self.row_token = head, places.queries[place]
        self.whole: dict[tuple[str, int], tuple[Int64, Int64]] = {}
        self.last: Commands | None = None

    def commands(self, asked: Asked) -> Commands:
        """What is asked as commands; most rounds ask what the one before did."""
        if self.last is None or not asked.same(self.last.asked):
            self.last = self._made(asked)
        return self.last

    def _made(self, asked: Asked) -> Commands:
        fetches = [self._accesses(*line) for line in asked.requests.tolist()]
        rows = [self._row_accesses("query", asked.queries), self._row_accesses("output", asked.outputs)]
        counts = np.concatenate([np.array([made.size for made, _ in fetches], np.int64), rows[0][1], rows[1][1]])
        stream = np.repeat(np.arange(3), (len(fetches), asked.queries.size, asked.outputs.size))
        addresses = self.before.base + np.concatenate([*(made for made, _ in fetches), rows[0][0], rows[1][0]])
        is_write, before = np.repeat(stream == _WRITES, counts), self.before
        program = PortProgram(
            self.dram,
            np.concatenate((before.addresses, addresses)),
            np.concatenate((before.is_write, is_write)),
            np.concatenate((before.stream, stream)),
            _offsets(np.concatenate((before.counts, counts))),
            self.ports,
        )
        kinds = np.concatenate(
            (asked.requests[:, 0], np.full(asked.queries.size, QUERY), np.full(asked.outputs.size, OUTPUT))
        )
        needed = [needed for _, needed in fetches]
        beats = np.array([part.size for part in needed])
        return Commands(
            asked, program, before, addresses, is_write, stream, _offsets(counts), kinds, np.concatenate(needed), beats
        )

    def history(self, own: Commands, taken: Int64, cycles: int) -> History:
        """The history after this group, whose commands were taken in the cycles `taken`; the next one's operands lie behind its
        own."""
        before, last = self.before, self.planes["output"]
        end = before.base + last.base + self.query_heads * self.places.tokens * last.row_bytes
        return History(
            before.cycle + cycles,
            -(-end // REGION_BYTES) * REGION_BYTES,
            np.concatenate((before.addresses, own.addresses)),
            np.concatenate((before.is_write, own.is_write)),
            np.concatenate((before.stream, own.stream)),
            np.concatenate((before.counts, np.diff(own.offset))),
            np.concatenate((before.ready, taken + 1 + before.cycle)),
        )

    def _accesses(self, kind: int, head: int, survivors_of: int) -> tuple[Int64, Int64]:
        """Addresses of a request's accesses, and how many each beat needs from the front."""
        name = {KEY_MSB: "key_msb", KEY_LSB: "key_lsb", VALUE: "value"}[kind]
        plane, row_bytes, lanes = self.planes[name], getattr(self.rows, name), self.config.softmax.lanes
        if survivors_of >= 0:
            tokens = self.places.keys[self.places.survivors[survivors_of]]
            return accesses(plane.addresses(head, tokens), row_bytes, self.size, lanes)
        # All heads' rows lie alike within their accesses if the heads lie whole accesses apart.
        move = head * plane.head_bytes if plane.head_bytes % self.size == 0 else 0
        known = name, head * plane.head_bytes - move
        if known not in self.whole:
            addresses = plane.addresses(head, self.places.keys) - move
            self.whole[known] = accesses(addresses, row_bytes, self.size, lanes)
        made, needed = self.whole[known]
        return made + move, needed

    def _row_accesses(self, name: str, rows: Int64) -> tuple[Int64, Int64]:
        """Accesses of query or output rows one by one, and how many each has."""
        plane, width = self.planes[name], getattr(self.rows, name)
        start = plane.base + self.row_head[rows] * plane.head_bytes + self.row_token[rows] * plane.page_bytes
        first, count = start // self.size, (start + width - 1) // self.size - start // self.size + 1
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        return (np.repeat(first, count) + within) * self.size, count


def _row_bits(config: AcceleratorConfig, group: Group) -> tuple[int, ...]:
    """Bits of an element in each plane of `PlaneRows`."""
    if isinstance(group, TerminationGroup):
        ends = group.shape(config)
        return ends.query_bits, ends.key_msb_bits, ends.key_lsb_bits, ends.value_bits, ends.output_bits
    return group.shape(config)[7:12]


def _offsets(counts: Int64) -> Int64:
    return np.concatenate(([0], np.cumsum(counts)))
