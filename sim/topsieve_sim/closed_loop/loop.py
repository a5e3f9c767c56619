"""The attention unit on the DRAM model: times that are consistent with each other, found by iteration.

The attention unit's requests decide what the memory sees, and the memory's answers decide when the unit asks. Both models
are exact for given inputs of the other, and nothing in either depends on its future, so there is one consistent pair
of times; going back and forth between the two reaches it, each round from a longer exact beginning. A run that has not
settled is an error, never a result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.closed_loop.layout import PlaneRows, accesses, place_planes
from topsieve_sim.closed_loop.memory import machine_memory, memory_ports
from topsieve_sim.dram.port_program import PortProgram
from topsieve_sim.dram.ports import PortTimes
from topsieve_sim.dram.result import DramCounters
from topsieve_sim.timing.accounting import KEY_LSB, KEY_MSB, OUTPUT, QUERY, VALUE
from topsieve_sim.timing.attention import AttentionGroup, AttentionTimes, run_group
from topsieve_sim.timing.attention_kernel import LEFT, PICK, ROW
from topsieve_sim.timing.memory_port import MemoryPort, scripted_port
from topsieve_sim.timing.termination import run_terminated
from topsieve_sim.timing.termination_group import TerminationGroup

Int64 = NDArray[np.int64]
Group = AttentionGroup | TerminationGroup

# Rounds after which a run is given up; no group of the published traces takes thirty.
ROUNDS = 500

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
    transfers: Transfers


def _row_bits(config: AcceleratorConfig, group: Group) -> tuple[int, ...]:
    """Bits of an element in each plane of `PlaneRows`."""
    if isinstance(group, TerminationGroup):
        ends = group.shape(config)
        return ends.query_bits, ends.key_msb_bits, ends.key_lsb_bits, ends.value_bits, ends.output_bits
    return group.shape(config)[7:12]


class _Asked(NamedTuple):
    """What a group asks of its memory, in program order, without the cycles.

    requests : int64 [requests, 3], plane, key-value head, and the row whose survivors are fetched (-1: all keys).
    queries, outputs : int64 [rows], rows in order of cycle.
    """

    requests: Int64
    queries: Int64
    outputs: Int64

    def same(self, other: _Asked) -> bool:
        return all(np.array_equal(mine, theirs) for mine, theirs in zip(self, other, strict=True))


@dataclass(frozen=True)
class _Commands:
    """What is asked, as commands of the memory's ports: requests, then queries, then outputs.

    kinds : int64 [commands]. needed : int64 [beats of all requests], accesses from a request's front that a beat needs.
    beats : int64 [requests].
    """

    asked: _Asked
    program: PortProgram
    kinds: Int64
    needed: Int64
    beats: Int64


class _Memory:
    """The memory's side: requests with their cycles in, arrivals out."""

    def __init__(self, config: AcceleratorConfig, group: Group, places: TokenPlaces) -> None:
        self.config, self.group, self.places = config, group, places
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
        self.last: _Commands | None = None

    def commands(self, asked: _Asked) -> _Commands:
        """What is asked as commands; most rounds ask what the one before did."""
        if self.last is None or not asked.same(self.last.asked):
            self.last = self._made(asked)
        return self.last

    def _made(self, asked: _Asked) -> _Commands:
        fetches = [self._accesses(*line) for line in asked.requests.tolist()]
        rows = [self._row_accesses("query", asked.queries), self._row_accesses("output", asked.outputs)]
        counts = np.concatenate([np.array([made.size for made, _ in fetches], np.int64), rows[0][1], rows[1][1]])
        stream = np.repeat(np.arange(3), (len(fetches), asked.queries.size, asked.outputs.size))
        offset = np.concatenate(([0], np.cumsum(counts)))
        program = PortProgram(
            self.dram,
            np.concatenate([*(made for made, _ in fetches), rows[0][0], rows[1][0]]),
            np.repeat(stream == _WRITES, counts),
            stream,
            offset,
            self.ports,
        )
        kinds = np.concatenate(
            (asked.requests[:, 0], np.full(asked.queries.size, QUERY), np.full(asked.outputs.size, OUTPUT))
        )
        needed = [needed for _, needed in fetches]
        return _Commands(asked, program, kinds, np.concatenate(needed), np.array([part.size for part in needed]))

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
    def first(cls, config: AcceleratorConfig, group: Group) -> Script:
        """Every beat and query after the configured latency."""
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

    def answered(self, commands: _Commands, answer: PortTimes, taken: Int64) -> Script:
        """The script with what the memory answered to commands taken in the cycles `taken`."""
        found = Script(*(values.copy() for values in vars(self).values()))
        offset = commands.program.offset
        picked, started = np.split(taken, np.cumsum((commands.beats.size, commands.asked.queries.size)))[:2]
        _answers(
            answer.back, answer.free, offset, picked, started, commands.needed, commands.beats,
            found.arrival, found.free, found.query, found.query_free,
        )  # fmt: skip
        return found

    def same(self, other: Script) -> bool:
        """Whether both say the same."""
        return all(
            np.array_equal(mine, theirs) for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)
        )


def closed_loop(
    config: AcceleratorConfig, group: Group, places: TokenPlaces, guess: Script | None = None
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
    script = guess or Script.first(config, group)
    for rounds in range(1, ROUNDS + 1):
        times, events, asked, taken = _attention(config, group, script)
        commands = memory.commands(asked)
        answer = commands.program.run(taken + 1)
        found = script.answered(commands, answer, taken)
        if found.same(script):
            moved, offset = np.zeros(times.dram_bytes.shape[1], np.int64), commands.program.offset
            np.add.at(moved, commands.kinds, np.diff(offset) * memory.size)
            transfers = Transfers(asked.requests, taken, offset, answer.issued, answer.back)
            return ClosedLoop(times, events, commands.program.counters(), moved, rounds, script, transfers)
        script = found
    raise RuntimeError(f"attention and memory did not agree within {ROUNDS} rounds")


def _attention(config: AcceleratorConfig, group: Group, script: Script) -> tuple[AttentionTimes, Int64, _Asked, Int64]:
    """Times and row events on a script, what was asked, and the cycle in which each command was."""
    port, query_port = script.ports()
    if isinstance(group, TerminationGroup):
        times, events = run_terminated(config, group, port, query_port)
    else:
        times, events = run_group(config, group, port, query_port)
    number = int(port.at[0])
    final = events[events[:, LEFT] >= 0]
    final = final[np.argsort(final[:, LEFT], kind="stable")]
    taken = np.concatenate((port.picked[:number], events[:, PICK], final[:, LEFT]))
    return times, events, _Asked(port.asked[:number], events[:, ROW], final[:, ROW]), taken


@njit(cache=True)
def _answers(
    back: Int64,
    command_free: Int64,
    offset: Int64,
    picked: Int64,
    started: Int64,
    needed: Int64,
    beats: Int64,
    arrival: Int64,
    free: Int64,
    query: Int64,
    query_free: Int64,
) -> None:
    """The memory's cycles of requests and queries as cycles after each was taken, into the last four."""
    beat = 0
    for number in range(picked.size):
        first, done, latest = offset[number], 0, 0
        for _ in range(beats[number]):
            while done < needed[beat]:
                latest = max(latest, back[first + done])
                done += 1
            arrival[beat] = latest - picked[number]
            beat += 1
        free[number] = command_free[number] - picked[number]
    for row in range(started.size):
        command = picked.size + row
        query[row] = back[offset[command] : offset[command + 1]].max() - started[row]
        query_free[row] = command_free[command] - started[row]
