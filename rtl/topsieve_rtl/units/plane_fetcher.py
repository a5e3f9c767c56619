"""The plane fetcher of keys and values as a unit: commands, indices and a memory's words in, bursts and elements out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from amaranth.lib import wiring
from numpy.typing import NDArray

from topsieve_rtl.cosim import Case, Channel, Sink, Source
from topsieve_rtl.cosim.design import View
from topsieve_rtl.units.attention_cases import draw_stalls
from topsieve_rtl.units.unit import Unit
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.accelerator_latency import key_value_fetch_shape
from topsieve_sim.golden.plane_fetch import FetchCommand, FetchPlan, PlaneFetchShape, fetch_beats, plan_fetch
from topsieve_sim.timing.plane_fetch import MemoryTimes, PlaneFetchTimes, plane_fetch_times

_LONGEST_COMMAND = 12
# One word in so many is answered with an error.
_WORDS_PER_ERROR = 40


class PlaneFetcherUnit(Unit):
    """Fetcher 0 of the accelerator: keys, values, descriptors and score factors."""

    name = "plane_fetcher"
    summary = "Plane fetcher: gathers rows of live tokens over an AXI4 read port, one bit plane a command."
    port_notes: ClassVar[Mapping[str, str]] = {
        "command": "`rows` rows of `elements` elements of a plane: 0 key MSB, 1 key LSB, 2 value, 3 bytes",
        "index": "the rows of commands with `gather`",
        "address": "AR: address of the first word, ARLEN",
        "data": "R: word, RRESP, RLAST; always taken",
        "o": "elements, zero-extended; `first` and `last` of the row, `final` of the command with its `status`",
    }
    latency_note = (
        "From a command to its first AR 7 cycles for a row that closes its run at once; from a word on R to the beat that it "
        "completes 4 cycles. `docs/plane-fetcher.md`; the recurrences are in `topsieve_sim/timing/plane_fetch.py`."
    )

    def component(self, config: AcceleratorConfig) -> wiring.Component:
        from topsieve_rtl.memory import PlaneFetcher

        return PlaneFetcher(key_value_fetch_shape(config))

    def draw(self, config: AcceleratorConfig, generator: np.random.Generator) -> Case:
        shape = key_value_fetch_shape(config)
        commands, indices = _draw_commands(shape, generator)
        plan = plan_fetch(shape, commands, indices)
        words = _draw_words(shape, plan, generator)
        beats = fetch_beats(shape, commands, indices, _memory(shape, plan, words))
        command_arrivals, address_ready = draw_stalls(generator, len(commands), 200)
        index_arrivals, ready = draw_stalls(generator, len(indices), 200)
        slow = int(generator.choice([1, 3, 30]))
        times = plane_fetch_times(
            shape,
            plan,
            np.asarray(command_arrivals, np.int64),
            np.asarray(index_arrivals, np.int64),
            MemoryTimes(
                np.asarray(address_ready, np.bool_),
                generator.integers(0, slow, plan.burst_words.size),
                generator.integers(0, slow, len(words)) * (generator.random(len(words)) < 1 / 4),
            ),
            np.asarray(ready, np.bool_),
        )
        return Case(
            {
                "command": Source(commands, command_arrivals),
                "index": Source(indices, index_arrivals),
                "data": Source(words, times.data.tolist()),
            },
            {"address": Sink(plan.burst_words.size, address_ready), "o": Sink(len(beats), ready)},
        )

    def expect(self, config: AcceleratorConfig, case: Case) -> Mapping[str, Channel]:
        shape = key_value_fetch_shape(config)
        command, index, data = (case.sources[name] for name in ("command", "index", "data"))
        plan = plan_fetch(shape, command.beats, index.beats)
        times = _times(shape, plan, case)
        bursts = [(burst.address, burst.words - 1) for burst in plan.bursts]
        beats = fetch_beats(shape, command.beats, index.beats, _memory(shape, plan, data.beats))
        return {
            "command": Channel(times.command.tolist(), list(command.beats)),
            "index": Channel(times.indices.tolist(), list(index.beats)),
            "data": Channel(times.data.tolist(), list(data.beats)),
            "address": Channel(times.address.tolist(), bursts),
            "o": Channel(times.left.tolist(), beats),
        }

    def views(self, config: AcceleratorConfig) -> Mapping[str, View]:
        return {"o": valid_lanes}


def valid_lanes(beat: tuple[Any, ...]) -> tuple[Any, ...]:
    """View of a `FetchBeat`: lanes at and beyond `count` become None, since they may hold anything."""
    lanes, count, *rest = beat
    return (tuple(lane if place < count else None for place, lane in enumerate(lanes)), count, *rest)


def _draw_commands(shape: PlaneFetchShape, generator: np.random.Generator) -> tuple[list[FetchCommand], list[int]]:
    """Whole heads and sparse tokens of any plane; rows that touch, overlap or lie apart; empty ones."""
    commands, indices = [], []
    for _ in range(int(generator.integers(1, 5))):
        plane = int(generator.integers(len(shape.element_bits)))
        elements = int(generator.choice([0, 1, shape.max_elements, *generator.integers(1, shape.max_elements + 1, 6)]))
        rows = int(generator.integers(0, min(shape.max_rows, _LONGEST_COMMAND) + 1))
        gather = int(generator.integers(2))
        size = shape.row_bytes(elements, plane)
        stride = size + int(generator.choice([0, 0, 1, generator.integers(64)]))
        if gather:
            indices += np.sort(generator.choice(shape.max_rows, rows, replace=False)).tolist()
        base = int(generator.integers(1 << shape.address_bits))
        commands.append(FetchCommand(base, stride % (1 << shape.stride_bits), rows, elements, plane, gather))
    return commands, indices


Word = tuple[int, int, int]
"""(word as an integer, RRESP, RLAST)"""


def _addresses(shape: PlaneFetchShape, plan: FetchPlan) -> list[tuple[int, int]]:
    """Byte address of each word, and whether it is its burst's last."""
    return [
        ((burst.address + n * shape.data_bytes) % (1 << shape.address_bits), int(n + 1 == burst.words))
        for burst in plan.bursts
        for n in range(burst.words)
    ]


def _draw_words(shape: PlaneFetchShape, plan: FetchPlan, generator: np.random.Generator) -> list[Word]:
    """A word that is read twice is the same word."""
    known: dict[int, tuple[int, int]] = {}
    words = []
    for address, last in _addresses(shape, plan):
        if address not in known:
            response = int(generator.choice([1, 2, 3])) if generator.integers(_WORDS_PER_ERROR) == 0 else 0
            known[address] = (int.from_bytes(generator.bytes(shape.data_bytes), "little"), response)
        words.append((*known[address], last))
    return words


def _memory(shape: PlaneFetchShape, plan: FetchPlan, words: Sequence[Word]) -> Any:
    known = {
        address: (word, response)
        for (address, _), (word, response, _) in zip(_addresses(shape, plan), words, strict=True)
    }
    return known.__getitem__


def _times(shape: PlaneFetchShape, plan: FetchPlan, case: Case) -> PlaneFetchTimes:
    """The cycles of a case, whose memory answers in the cycles that it names."""
    data = np.asarray(case.sources["data"].arrival_cycles, np.int64)
    delay, gap = np.zeros(plan.burst_words.size, np.int64), np.zeros(data.size, np.int64)
    gap[1:] = np.diff(data) - 1

    def times() -> PlaneFetchTimes:
        return plane_fetch_times(
            shape,
            plan,
            _cycles(case, "command"),
            _cycles(case, "index"),
            MemoryTimes(np.asarray(case.sinks["address"].ready_pattern, np.bool_), delay, gap),
            np.asarray(case.sinks["o"].ready_pattern, np.bool_),
        )

    if data.size:
        # No word comes before the first address, which therefore depends on none.
        delay[0] = data[0] - times().address[0] - 1
    return times()


def _cycles(case: Case, source: str) -> NDArray[np.int64]:
    return np.asarray(case.sources[source].arrival_cycles, np.int64)
