"""The attention unit on the DRAM model: times that are consistent with each other, found by iteration.

The attention unit's requests decide what the memory sees, and the memory's answers decide when the unit asks. Both models
are exact for given inputs of the other, and nothing in either depends on its future, so there is one consistent pair
of times; going back and forth between the two reaches it, each round from a longer exact beginning. A run that has not
settled is an error, never a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.closed_loop.commands import Asked, Commands, Group, GroupMemory, TokenPlaces, Transfers, nothing_yet
from topsieve_sim.dram.ports import PortTimes
from topsieve_sim.dram.result import DramCounters
from topsieve_sim.timing.accounting import KEY_LSB, KEY_MSB, VALUE
from topsieve_sim.timing.attention import AttentionTimes, run_group
from topsieve_sim.timing.attention_kernel import LEFT, PICK, ROW
from topsieve_sim.timing.memory_port import MemoryPort, scripted_port
from topsieve_sim.timing.termination import run_terminated
from topsieve_sim.timing.termination_group import TerminationGroup

Int64 = NDArray[np.int64]

# Rounds after which a run is given up; no group of the published traces takes thirty.
ROUNDS = 500


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

    def answered(self, commands: Commands, answer: PortTimes, taken: Int64) -> Script:
        """The script with what the memory answered to commands taken in the cycles `taken`."""
        found = Script(*(values.copy() for values in vars(self).values()))
        offset = commands.offset
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
    return _settled(GroupMemory(config, group, places, nothing_yet()), guess)[0]


def back_to_back(config: AcceleratorConfig, pieces: Sequence[tuple[Group, TokenPlaces]]) -> list[ClosedLoop]:
    """Groups one after the other on one memory: open rows, refreshes, queues and ports stay as the group before left them.

    Each begins when the one before has written its last row, on an idle machine, with operands behind its. Cycles count from its
    own beginning; `counters` are those of the memory since the first.

    Raises
    ------
    InputError, RuntimeError
        as `closed_loop`.
    """
    found: list[ClosedLoop] = []
    history = nothing_yet()
    for group, places in pieces:
        memory = GroupMemory(config, group, places, history)
        run, commands = _settled(memory, None)
        found.append(run)
        history = memory.history(commands, run.transfers.taken, int(run.times.cycles[0]))
    return found


def _settled(memory: GroupMemory, guess: Script | None) -> tuple[ClosedLoop, Commands]:
    config, group = memory.config, memory.group
    script = guess or Script.first(config, group)
    for rounds in range(1, ROUNDS + 1):
        times, events, asked, taken = _attention(config, group, script)
        commands = memory.commands(asked)
        answer = commands.run(taken)
        found = script.answered(commands, answer, taken)
        if found.same(script):
            moved = np.zeros(times.dram_bytes.shape[1], np.int64)
            np.add.at(moved, commands.kinds, np.diff(commands.offset) * memory.size)
            transfers = Transfers(asked.requests, taken, commands.offset, answer.issued, answer.back)
            run = ClosedLoop(times, events, commands.program.counters(), moved, rounds, script, transfers)
            return run, commands
        script = found
    raise RuntimeError(f"attention and memory did not agree within {ROUNDS} rounds")


def _attention(config: AcceleratorConfig, group: Group, script: Script) -> tuple[AttentionTimes, Int64, Asked, Int64]:
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
    return times, events, Asked(port.asked[:number], events[:, ROW], final[:, ROW]), taken


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
