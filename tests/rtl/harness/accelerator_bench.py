# amaranth: UnusedElaboratable=no
"""The whole machine on a memory: three AXI4 ports that stall at random, and an AXI4-Lite master that drives it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from amaranth.sim import Simulator

from topsieve_rtl.accelerator import Accelerator
from topsieve_rtl.csr import ACCELERATOR_MAP
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.timing.accelerator import NO_RUN_STALLS, RunStalls, WriteStalls
from topsieve_sim.timing.attention import PortStalls

OKAY, SLAVE_ERROR, DECODE_ERROR = 0, 2, 3


def draw_stalls(generator: np.random.Generator, chance: float, cycles: int = 4000) -> RunStalls:
    """Every channel pauses by itself; after `cycles` cycles, or as many bursts or words, none does."""

    def ready() -> np.ndarray:
        return generator.random(cycles) >= chance

    def pauses() -> np.ndarray:
        return generator.integers(1, 8, cycles) * (generator.random(cycles) < chance)

    ports = [PortStalls(ready(), pauses(), pauses() * (generator.random(cycles) < 0.5)) for _ in range(2)]
    return RunStalls(*ports, WriteStalls(ready(), ready(), pauses()))


def _at(pattern: np.ndarray, place: int, beyond: int) -> int:
    """A pattern that begins with `start`, and ends."""
    return int(pattern[place]) if 0 <= place < pattern.size else beyond


def _response(image: bytearray, address: int, fails: Callable[[int], bool]) -> int:
    if address >= len(image):
        return DECODE_ERROR
    return SLAVE_ERROR if fails(address) else OKAY


def _checked(address: int, words: int, width: int) -> None:
    assert address % width == 0
    assert address // 4096 == (address + words * width - 1) // 4096, "a burst crosses 4 kB"


@dataclass
class ReadPort:
    """A read-only slave whose words come as `topsieve_sim.timing.plane_fetch` says; `cycle` counts from `start`."""

    name: str
    image: bytearray
    width: int
    latency: int
    stalls: PortStalls
    fails: Callable[[int], bool]
    waiting: deque[list[int]] = field(default_factory=deque)
    bursts: int = 0
    words: int = 0
    last_word: int = -1
    ready: int = 1
    offered: bool = False

    def drive(self, put: Callable[[str, int], None], cycle: int) -> None:
        """The wires of a cycle."""
        self.ready = _at(self.stalls.ready, cycle, 1)
        put(f"m_axi_{self.name}_arready", self.ready)
        paused = _at(self.stalls.gap, self.words, 0) if self.words else 0
        self.offered = bool(self.waiting) and cycle >= max(self.waiting[0][0], self.last_word + 1 + paused)
        put(f"m_axi_{self.name}_rvalid", self.offered)
        if self.offered:
            _, address, words = self.waiting[0]
            put(f"m_axi_{self.name}_rdata", int.from_bytes(self.image[address : address + self.width], "little"))
            put(f"m_axi_{self.name}_rresp", _response(self.image, address, self.fails))
            put(f"m_axi_{self.name}_rlast", words == 1)

    def sample(self, get: Callable[[str], int], cycle: int) -> None:
        """What crossed in the cycle."""
        if self.offered:
            assert get(f"m_axi_{self.name}_rready"), "a word waits"
            self.waiting[0][1] += self.width
            self.waiting[0][2] -= 1
            if not self.waiting[0][2]:
                self.waiting.popleft()
            self.last_word = cycle
            self.words += 1
        if self.ready and get(f"m_axi_{self.name}_arvalid"):
            address, words = get(f"m_axi_{self.name}_araddr"), get(f"m_axi_{self.name}_arlen") + 1
            _checked(address, words, self.width)
            self.waiting.append([cycle + 1 + self.latency + _at(self.stalls.delay, self.bursts, 0), address, words])
            self.bursts += 1


@dataclass
class WritePort:
    """A write-only slave that answers as `topsieve_sim.timing.row_writer` says; `cycle` counts from `start`."""

    image: bytearray
    width: int
    latency: int
    stalls: WriteStalls
    fails: Callable[[int], bool]
    addresses: deque[list[int]] = field(default_factory=deque)
    responses: deque[tuple[int, int]] = field(default_factory=deque)
    bursts: int = 0
    response: int = OKAY
    ready: tuple[int, int] = (1, 1)
    offered: bool = False

    def drive(self, put: Callable[[str, int], None], cycle: int) -> None:
        """The wires of a cycle."""
        self.ready = (_at(self.stalls.address_ready, cycle, 1), _at(self.stalls.word_ready, cycle, 1))
        put("m_axi_w_awready", self.ready[0])
        put("m_axi_w_wready", self.ready[1])
        self.offered = bool(self.responses) and cycle >= self.responses[0][0]
        put("m_axi_w_bvalid", self.offered)
        put("m_axi_w_bresp", self.responses[0][1] if self.offered else OKAY)

    def sample(self, get: Callable[[str], int], cycle: int) -> None:
        """What crossed in the cycle."""
        if self.offered:
            assert get("m_axi_w_bready"), "a response waits"
            self.responses.popleft()
        if self.ready[0] and get("m_axi_w_awvalid"):
            address, words = get("m_axi_w_awaddr"), get("m_axi_w_awlen") + 1
            _checked(address, words, self.width)
            self.addresses.append([address, words])
        if self.ready[1] and get("m_axi_w_wvalid"):
            self._write(get, cycle)

    def _write(self, get: Callable[[str], int], cycle: int) -> None:
        burst = self.addresses[0]
        word, strobes = get("m_axi_w_wdata").to_bytes(self.width, "little"), get("m_axi_w_wstrb")
        self.response = max(self.response, _response(self.image, burst[0], self.fails))
        if burst[0] < len(self.image):
            for byte in range(self.width):
                if strobes >> byte & 1:
                    self.image[burst[0] + byte] = word[byte]
        burst[0] += self.width
        burst[1] -= 1
        assert get("m_axi_w_wlast") == (burst[1] == 0)
        if not burst[1]:
            self.addresses.popleft()
            delay = _at(self.stalls.delay, self.bursts, 0)
            self.responses.append((cycle + 1 + self.latency + delay, self.response))
            self.bursts += 1
            self.response = OKAY


@dataclass
class Job:
    """A run from `start`: the memory before it, where its first descriptor is, how the ports stall, which words fail.

    Without `every_counter` only the first is read: cycles.
    """

    image: bytearray
    descriptor: int
    threshold: int | None = None
    stalls: RunStalls = NO_RUN_STALLS
    every_counter: bool = True
    read_fails: Callable[[int], bool] = lambda address: False
    query_fails: Callable[[int], bool] = lambda address: False
    write_fails: Callable[[int], bool] = lambda address: False


@dataclass
class Outcome:
    """The memory after the run, the status and the performance counters."""

    image: bytes
    done: int
    error: int
    counters: dict[str, int]


def run_machine(config: AcceleratorConfig, jobs: Sequence[Job], limit: int = 60_000) -> list[Outcome]:
    """Run jobs one after the other without a reset between them, each from `start` to the interrupt.

    Raises
    ------
    AssertionError
        a job does not end within `limit` cycles, or breaks a rule of AXI4.
    """
    machine = Accelerator(config)
    simulator = Simulator(machine)
    simulator.add_clock(1e-9)
    outcomes: list[Outcome] = []

    async def bench(context: Any) -> None:
        for job in jobs:
            outcomes.append(await _Run(context, machine, job, limit).play())

    simulator.add_testbench(bench)
    simulator.run()
    return outcomes


class _Run:
    """One job on a machine under simulation."""

    def __init__(self, context: Any, machine: Accelerator, job: Job, limit: int) -> None:
        self.context, self.machine, self.job, self.limit = context, machine, job, limit
        # Counts from `start`, which is not known before it comes.
        self.cycle = -limit
        self.image = bytearray(job.image)
        width, latency = machine.config.memory.bytes_per_cycle, machine.config.memory.latency_cycles
        self.ports = (
            ReadPort("kv", self.image, width, latency, job.stalls.operands, job.read_fails),
            ReadPort("q", self.image, width, latency, job.stalls.queries, job.query_fails),
            WritePort(self.image, width, latency, job.stalls.writes, job.write_fails),
        )

    async def play(self) -> Outcome:
        """From the set-up of the registers to the end of the run."""
        await self.store("descriptor_address_lo", self.job.descriptor)
        if self.job.threshold is not None:
            await self.store("progressive_threshold", self.job.threshold)
        await self.store("interrupt_enable", 3)
        await self.store("control", 0b010)
        await self.store("control", 0b001)
        status = 0
        # Descriptors may interrupt on the way.
        while not status >> 1:
            await self.interrupted()
            await self.store("interrupt_status", 3)
            status = await self.load("status")
        await self.store("control", 0b100)
        # No run here lasts 2^32 cycles, so one upper half stands for all.
        read = ACCELERATOR_MAP.counters if self.job.every_counter else ACCELERATOR_MAP.counters[:1]
        counters = {counter.name: await self.load_at(counter.offset) for counter in read}
        assert await self.load_at(ACCELERATOR_MAP.counters[0].offset + 4) == 0
        await self.store("status", 0x102)
        assert not self.context.get(self.machine.irq)
        return Outcome(bytes(self.image), status >> 1 & 1, status >> 8 & 0xFF, counters)

    async def interrupted(self) -> None:
        """Until the interrupt is high."""
        while not self.context.get(self.machine.irq):
            assert self.cycle < self.limit, f"no interrupt within {self.limit} cycles"
            await self.tick()

    async def tick(self) -> None:
        """A cycle, in which the memory does its part."""

        def put(wire: str, value: int) -> None:
            self.context.set(getattr(self.machine, wire), value)

        def get(wire: str) -> int:
            return int(self.context.get(getattr(self.machine, wire)))

        if self.context.get(self.machine.registers.control_start):
            self.cycle = 0
        for port in self.ports:
            port.drive(put, self.cycle)
        for port in self.ports:
            port.sample(get, self.cycle)
        await self.context.tick()
        self.cycle += 1

    async def store(self, register: str, value: int) -> None:
        """Write a register."""
        await self._store_at(ACCELERATOR_MAP.register(register).offset, value)

    async def _store_at(self, offset: int, value: int) -> None:
        machine, context = self.machine, self.context
        for wire, word in (("awaddr", offset), ("awvalid", 1), ("wdata", value), ("wstrb", 15), ("wvalid", 1)):
            context.set(getattr(machine, f"s_axil_{wire}"), word)
        context.set(machine.s_axil_bready, 1)
        waiting = {"aw", "w"}
        answered = False
        while waiting or not answered:
            crossed = {channel for channel in waiting if context.get(getattr(machine, f"s_axil_{channel}ready"))}
            answered |= bool(context.get(machine.s_axil_bvalid))
            await self.tick()
            for channel in crossed:
                context.set(getattr(machine, f"s_axil_{channel}valid"), 0)
            waiting -= crossed

    async def load(self, register: str) -> int:
        """Read a register."""
        return await self.load_at(ACCELERATOR_MAP.register(register).offset)

    async def load_at(self, offset: int) -> int:
        """Read a word."""
        machine, context = self.machine, self.context
        context.set(machine.s_axil_araddr, offset)
        context.set(machine.s_axil_arvalid, 1)
        context.set(machine.s_axil_rready, 1)
        while True:
            taken, answered = context.get(machine.s_axil_arready), context.get(machine.s_axil_rvalid)
            value = int(context.get(machine.s_axil_rdata))
            await self.tick()
            if taken:
                context.set(machine.s_axil_arvalid, 0)
            if answered:
                return value
