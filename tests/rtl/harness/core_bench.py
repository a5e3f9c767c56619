"""The attention core between its two plane fetchers, clocked on a memory that answers as the contract says, stalls added."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from amaranth import Module, Value
from amaranth.hdl import Elaboratable
from amaranth.lib import wiring
from amaranth.sim import Simulator

from rtl.harness.core_cases import CoreCase, Image
from topsieve_rtl.attention.core import AttentionCore
from topsieve_rtl.cosim.codec import pack, unpack
from topsieve_rtl.memory import PlaneFetcher
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.accelerator_latency import key_value_fetch_shape, query_fetch_shape
from topsieve_sim.timing.accounting import CAUSES, UNITS
from topsieve_sim.timing.attention import NEVER_STALLS, PortStalls


@dataclass(frozen=True)
class Stalls:
    """Of keys and values, of queries, and of the output; `ready` bool [cycles], always beyond the end."""

    operands: PortStalls = NEVER_STALLS
    queries: PortStalls = NEVER_STALLS
    output: np.ndarray = field(default_factory=lambda: np.zeros(0, np.bool_))

    @classmethod
    def drawn(cls, seed: int, cycles: int = 2000) -> Stalls:
        """Each never, sometimes or mostly."""
        generator = np.random.default_rng(seed)

        def ready() -> np.ndarray:
            return generator.random(cycles) < generator.choice([1.0, 0.8, 0.3])

        def pauses() -> np.ndarray:
            return generator.integers(0, 8, cycles) * (generator.random(cycles) < generator.choice([0.0, 0.2, 0.7]))

        return cls(PortStalls(ready(), pauses(), pauses()), PortStalls(ready(), pauses(), pauses()), ready())


@dataclass
class PortMemory:
    """The memory behind one port: first word `latency` cycles after the cycle that follows the address, then a word a cycle."""

    data: bytes
    latency: int
    width: int
    stalls: PortStalls
    bursts: deque[tuple[int, int, int]] = field(default_factory=deque)
    place: int = 0
    next_cycle: int = 0
    words: int = 0
    asked: list[tuple[int, int, int]] = field(default_factory=list)

    def ready(self, cycle: int) -> bool:
        """Whether an address is taken in this cycle."""
        return bool(self.stalls.ready[cycle]) if cycle < len(self.stalls.ready) else True

    def ask(self, cycle: int, address: int, words: int) -> None:
        """An address taken in `cycle`."""
        number = len(self.asked)
        delay = int(self.stalls.delay[number]) if number < len(self.stalls.delay) else 0
        self.asked.append((cycle, address, words))
        self.bursts.append((cycle + 1 + self.latency + delay, address, words))

    def word(self, cycle: int) -> tuple[int, int] | None:
        """The word on R in this cycle, and whether it is its burst's last."""
        if not self.bursts or cycle < self.next_cycle or (self.place == 0 and cycle < self.bursts[0][0]):
            return None
        _, address, words = self.bursts[0]
        begin = address + self.place * self.width
        self.place += 1
        self.words += 1
        gap = int(self.stalls.gap[self.words]) if self.words < len(self.stalls.gap) else 0
        self.next_cycle = cycle + 1 + gap
        last = self.place == words
        if last:
            self.bursts.popleft()
            self.place = 0
        return int.from_bytes(self.data[begin : begin + self.width], "little"), int(last)


class CoreBench(Elaboratable):
    """The core with its fetchers."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.core = AttentionCore(config)
        self.fetchers = (PlaneFetcher(key_value_fetch_shape(config)), PlaneFetcher(query_fetch_shape(config)))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = core = self.core
        m.submodules.keys, m.submodules.queries = keys, queries = self.fetchers
        wiring.connect(m, core.fetch_command, keys.command)
        wiring.connect(m, core.fetch_index, keys.index)
        wiring.connect(m, keys.o, core.fetched)
        wiring.connect(m, core.query_command, queries.command)
        wiring.connect(m, core.query_index, queries.index)
        wiring.connect(m, queries.o, core.query_fetched)
        return m


@dataclass
class CoreLog:
    """What was seen of one job; cycles count from the one after its handshake.

    outputs : elements by (query head, query). tapped : int64 [capacity], sums of the tapped probabilities.
    commands, query_commands : cycles of the handshakes. bursts : (cycle, address, words) of each port.
    events : for each stream inside (product, filled, decided, probability, weighted, left) and row (query head, query,
    pass) the cycles of its beats. activity : int64 [units, causes], cycles.
    """

    outputs: dict[tuple[int, int], list[int]]
    tapped: np.ndarray
    activity: np.ndarray
    repeated: int = 0
    cycles: int = 0
    commands: list[int] = field(default_factory=list)
    query_commands: list[int] = field(default_factory=list)
    bursts: list[list[tuple[int, int, int]]] = field(default_factory=list)
    started: list[tuple[int, int, int]] = field(default_factory=list)
    events: dict[str, dict[tuple[int, int, int], list[int]]] = field(default_factory=dict)


class CoreRun:
    """Jobs one after the other, without a reset between them."""

    def __init__(self, config: AcceleratorConfig, limit_cycles: int = 30_000) -> None:
        self.config = config
        self.limit_cycles = limit_cycles
        self.bench = CoreBench(config)

    def run(self, cases: Sequence[CoreCase], stalls: Sequence[Stalls]) -> list[CoreLog]:
        """Play all; raises AssertionError where a job does not end."""
        logs: list[CoreLog] = []

        async def testbench(context: Any) -> None:
            for case, pattern in zip(cases, stalls, strict=True):
                logs.append(await self._play(context, case, pattern))

        simulator = Simulator(self.bench)
        simulator.add_clock(1e-9)
        simulator.add_testbench(testbench)
        simulator.run()
        return logs

    async def _strobes(self, context: Any, port: Any, writes: Sequence[dict[str, int]]) -> None:
        for write in writes:
            context.set(Value.cast(port).as_unsigned(), pack(port.shape(), write))
            await context.tick()
        context.set(Value.cast(port).as_unsigned(), 0)

    async def _play(self, context: Any, case: CoreCase, stalls: Stalls) -> CoreLog:
        config, core = self.config, self.bench.core
        image = Image(config, case)
        memories = [
            PortMemory(bytes(image.data), config.memory.latency_cycles, config.memory.bytes_per_cycle, pattern)
            for pattern in (stalls.operands, stalls.queries)
        ]
        await self._strobes(context, core.head_write, image.heads(case))
        factors = zip(*case.operands.factor, strict=True)
        writes = [{"valid": 1, "slot": n, "multiplier": a, "shift": b} for n, (a, b) in enumerate(factors)]
        await self._strobes(context, core.factor_write, writes)
        tokens = [{"valid": 1, "position": n, "token": token} for n, token in enumerate(case.tokens)]
        await self._strobes(context, core.token_write, tokens)
        assert context.get(core.idle)
        context.set(Value.cast(core.job.payload).as_unsigned(), pack(core.job.payload.shape(), image.job(config, case)))
        context.set(core.job.valid, 1)
        await context.tick()
        context.set(core.job.valid, 0)

        tapped = np.zeros(config.capacity + config.softmax.lanes, np.int64)
        log = CoreLog({}, tapped, np.zeros((UNITS, CAUSES), np.int64))
        log.events = {name: {} for name in ("product", "filled", "decided", "probability", "weighted", "left")}
        log.bursts = [memory.asked for memory in memories]
        for cycle in range(self.limit_cycles):
            for memory, fetcher in zip(memories, self.bench.fetchers, strict=True):
                word = memory.word(cycle)
                context.set(fetcher.data.valid, word is not None)
                if word is not None:
                    context.set(fetcher.data.payload.data, word[0])
                    context.set(fetcher.data.payload.last, word[1])
                context.set(fetcher.address.ready, memory.ready(cycle))
            context.set(core.o.ready, bool(stalls.output[cycle]) if cycle < len(stalls.output) else True)
            for memory, fetcher in zip(memories, self.bench.fetchers, strict=True):
                if self._crosses(context, fetcher.address):
                    burst = fetcher.address.payload
                    memory.ask(cycle, context.get(burst.address), context.get(burst.words_minus_one) + 1)
            self._watch(context, cycle, log)
            assert not context.get(core.overflow)
            done = context.get(core.done)
            await context.tick()
            if done:
                log.cycles = cycle
                assert context.get(core.idle)
                return log
        raise AssertionError(f"not done within {self.limit_cycles} cycles, {len(log.outputs)} rows left the core")

    @staticmethod
    def _crosses(context: Any, port: Any) -> bool:
        return bool(context.get(port.valid) and context.get(port.ready))

    def _row(self, number: int) -> tuple[int, int]:
        """Query head and query of a row number, in the order of events."""
        bits = (self.config.capacity - 1).bit_length()
        head = number >> bits & ((1 << (self.config.importance.heads - 1).bit_length()) - 1)
        return head, number & ((1 << bits) - 1)

    def _watch(self, context: Any, cycle: int, log: CoreLog) -> None:
        core = self.bench.core
        if cycle:
            # What is seen is that of the cycle before.
            causes = unpack(core.activity.shape(), context.get(core.activity.as_value()))
            log.activity[np.arange(UNITS), causes] += 1

        def note(name: str, row: tuple[int, int], second: int) -> None:
            log.events[name].setdefault((*row, second), []).append(cycle)

        if self._crosses(context, core.fetch_command):
            log.commands.append(cycle)
        if self._crosses(context, core.query_command):
            log.query_commands.append(cycle)
        if self._crosses(context, core.product.i):
            beat = core.product.i.payload
            row = (*self._row(context.get(beat.row)), context.get(beat.second_pass))
            if row not in log.events["product"]:
                log.started.append(row)
            note("product", row[:2], row[2])
        if self._crosses(context, core.softmax.i):
            beat = core.softmax.i.payload
            note("filled", self._row(context.get(beat.row)), context.get(beat.second_pass))
        if context.get(core.softmax.decided):
            row = self._row(context.get(core.softmax.decision.row))
            second = int((*row, 0) in log.events["decided"])
            note("decided", row, second)
            log.repeated += context.get(core.repeated)
        # Only a row's last pass goes on.
        if context.get(core.probability_tap.valid):
            row = self._row(context.get(core.softmax.o.payload.row))
            note("probability", row, int((*row, 1) in log.events["decided"]))
            lanes = [context.get(lane) for lane in core.probability_tap.lanes]
            first = context.get(core.probability_tap.word) * len(lanes)
            log.tapped[first : first + len(lanes)] += lanes
        if self._crosses(context, core.weighted.i):
            row = self._row(context.get(core.weighted.i.payload.row))
            note("weighted", row, int((*row, 1) in log.events["decided"]))
        if self._crosses(context, core.o):
            elements, number = unpack(core.o.payload.shape(), context.get(core.o.payload.as_value()))
            row = self._row(number)
            note("left", row, int((*row, 1) in log.events["decided"]))
            log.outputs[row] = list(elements)
