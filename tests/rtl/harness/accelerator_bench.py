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

OKAY, SLAVE_ERROR, DECODE_ERROR = 0, 2, 3


@dataclass
class Stalls:
    """Chances of a pause in a cycle, each channel for itself; all 0 is the memory of the timing model."""

    address: float = 0.0
    data: float = 0.0
    write: float = 0.0
    response: float = 0.0


def _response(image: bytearray, address: int, fails: Callable[[int], bool]) -> int:
    if address >= len(image):
        return DECODE_ERROR
    return SLAVE_ERROR if fails(address) else OKAY


@dataclass
class _Read:
    earliest: int
    address: int
    words: int


@dataclass
class ReadPort:
    """A read-only slave: bursts in order, a burst's first word `latency` cycles after the cycle behind its address."""

    name: str
    image: bytearray
    width: int
    latency: int
    stalls: Stalls
    generator: np.random.Generator
    fails: Callable[[int], bool]
    waiting: deque[_Read] = field(default_factory=deque)
    offered: tuple[int, int, int] | None = None
    ready: bool = True
    words: int = 0

    def drive(self, put: Callable[[str, int], None], cycle: int) -> None:
        """The wires of a cycle."""
        self.ready = self.generator.random() >= self.stalls.address
        put(f"m_axi_{self.name}_arready", self.ready)
        due = self.offered is None and bool(self.waiting) and cycle >= self.waiting[0].earliest
        if due and self.generator.random() >= self.stalls.data:
            burst = self.waiting[0]
            word = int.from_bytes(self.image[burst.address : burst.address + self.width], "little")
            self.offered = (word, _response(self.image, burst.address, self.fails), int(burst.words == 1))
        put(f"m_axi_{self.name}_rvalid", self.offered is not None)
        if self.offered is not None:
            for wire, value in zip(("rdata", "rresp", "rlast"), self.offered, strict=True):
                put(f"m_axi_{self.name}_{wire}", value)

    def sample(self, get: Callable[[str], int], cycle: int) -> None:
        """What crossed in the cycle."""
        if self.ready and get(f"m_axi_{self.name}_arvalid"):
            address, words = get(f"m_axi_{self.name}_araddr"), get(f"m_axi_{self.name}_arlen") + 1
            assert address % self.width == 0
            assert address // 4096 == (address + words * self.width - 1) // 4096, "a burst crosses 4 kB"
            self.waiting.append(_Read(cycle + 1 + self.latency, address, words))
        if self.offered is not None and get(f"m_axi_{self.name}_rready"):
            burst = self.waiting[0]
            burst.address += self.width
            burst.words -= 1
            self.words += 1
            if not burst.words:
                self.waiting.popleft()
            self.offered = None


@dataclass
class WritePort:
    """A write-only slave; a burst is answered `latency` cycles after the cycle behind its last word."""

    image: bytearray
    width: int
    latency: int
    stalls: Stalls
    generator: np.random.Generator
    fails: Callable[[int], bool]
    addresses: deque[list[int]] = field(default_factory=deque)
    responses: deque[tuple[int, int]] = field(default_factory=deque)
    offered: int | None = None
    response: int = OKAY
    ready: tuple[bool, bool] = (True, True)
    written: set[int] = field(default_factory=set)

    def drive(self, put: Callable[[str, int], None], cycle: int) -> None:
        """The wires of a cycle."""
        address, word = self.generator.random(2)
        self.ready = (bool(address >= self.stalls.address), bool(word >= self.stalls.write))
        put("m_axi_w_awready", self.ready[0])
        put("m_axi_w_wready", self.ready[1])
        due = self.offered is None and bool(self.responses) and cycle >= self.responses[0][0]
        if due and self.generator.random() >= self.stalls.response:
            self.offered = self.responses.popleft()[1]
        put("m_axi_w_bvalid", self.offered is not None)
        put("m_axi_w_bresp", self.offered or OKAY)

    def sample(self, get: Callable[[str], int], cycle: int) -> None:
        """What crossed in the cycle."""
        if self.offered is not None and get("m_axi_w_bready"):
            self.offered = None
        if self.ready[0] and get("m_axi_w_awvalid"):
            address, words = get("m_axi_w_awaddr"), get("m_axi_w_awlen") + 1
            assert address % self.width == 0
            assert address // 4096 == (address + words * self.width - 1) // 4096, "a burst crosses 4 kB"
            self.addresses.append([address, words])
        if self.ready[1] and get("m_axi_w_wvalid"):
            burst = self.addresses[0]
            word = get("m_axi_w_wdata").to_bytes(self.width, "little")
            strobes = get("m_axi_w_wstrb")
            there = burst[0] < len(self.image)
            for byte in range(self.width):
                if strobes >> byte & 1 and there:
                    self.image[burst[0] + byte] = word[byte]
                    self.written.add(burst[0] + byte)
            self.response = max(self.response, _response(self.image, burst[0], self.fails))
            burst[0] += self.width
            burst[1] -= 1
            assert get("m_axi_w_wlast") == (burst[1] == 0)
            if not burst[1]:
                self.addresses.popleft()
                self.responses.append((cycle + 1 + self.latency, self.response))
                self.response = OKAY


@dataclass
class Job:
    """A run from `start`: the memory before it, where its first descriptor is, and what goes wrong on the way."""

    image: bytearray
    descriptor: int
    threshold: int | None = None
    read_fails: Callable[[int], bool] = lambda address: False
    query_fails: Callable[[int], bool] = lambda address: False
    write_fails: Callable[[int], bool] = lambda address: False


@dataclass
class Outcome:
    """The memory after the run, the registers and counters, and which bytes were written."""

    image: bytearray
    done: int
    error: int
    counters: dict[str, int]
    written: set[int]


def run_machine(
    config: AcceleratorConfig, jobs: Sequence[Job], stalls: Stalls | None = None, seed: int = 0, limit: int = 60_000
) -> list[Outcome]:
    """Run jobs one after the other without a reset between them, each from `start` to the interrupt.

    Raises
    ------
    AssertionError
        a job does not end within `limit` cycles, or breaks a rule of AXI4.
    """
    machine = Accelerator(config)
    simulator = Simulator(machine)
    simulator.add_clock(1e-9)
    generator = np.random.default_rng(seed)
    outcomes: list[Outcome] = []

    async def bench(context: Any) -> None:
        for job in jobs:
            outcomes.append(await _Run(context, machine, job, stalls or Stalls(), generator, limit).play())

    simulator.add_testbench(bench)
    simulator.run()
    return outcomes


class _Run:
    """One job on a machine under simulation."""

    def __init__(
        self,
        context: Any,
        machine: Accelerator,
        job: Job,
        stalls: Stalls,
        generator: np.random.Generator,
        limit: int,
    ) -> None:
        self.context, self.machine, self.job, self.limit = context, machine, job, limit
        self.cycle = 0
        memory = machine.config.memory
        self.image = bytearray(job.image)
        common = (memory.bytes_per_cycle, memory.latency_cycles, stalls, generator)
        self.reads = [
            ReadPort("kv", self.image, *common, job.read_fails),
            ReadPort("q", self.image, *common, job.query_fails),
        ]
        self.write = WritePort(self.image, *common, job.write_fails)

    async def play(self) -> Outcome:
        """From the set-up of the registers to the end of the run."""
        await self.store("descriptor_address_lo", self.job.descriptor)
        if self.job.threshold is not None:
            await self.store("progressive_threshold", self.job.threshold)
        await self.store("interrupt_enable", 3)
        await self.store("control", 0b010)
        await self.store("control", 0b001)
        for _ in range(self.limit):
            if self.context.get(self.machine.irq):
                break
            await self.tick()
        else:
            raise AssertionError(f"no interrupt within {self.limit} cycles")
        while await self.load("status") & 1:
            pass
        status = await self.load("status")
        await self.store("control", 0b100)
        counters = {
            counter.name: await self.load_at(counter.offset) | await self.load_at(counter.offset + 4) << 32
            for counter in ACCELERATOR_MAP.counters
        }
        await self.store("status", 0x102)
        await self.store("interrupt_status", 3)
        assert not self.context.get(self.machine.irq)
        return Outcome(self.image, status >> 1 & 1, status >> 8 & 0xFF, counters, self.write.written)

    async def tick(self) -> None:
        """A cycle, in which the memory does its part."""

        def put(wire: str, value: int) -> None:
            self.context.set(getattr(self.machine, wire), value)

        def get(wire: str) -> int:
            return int(self.context.get(getattr(self.machine, wire)))

        for port in (*self.reads, self.write):
            port.drive(put, self.cycle)
        for port in (*self.reads, self.write):
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
