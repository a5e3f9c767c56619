"""The whole machine as a unit: layers in memory and register accesses in, registers and memory out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from amaranth.lib import wiring
from numpy.typing import NDArray

from topsieve_rtl.accelerator.stall_source import SEED_BITS, STALLS, stall_cycles
from topsieve_rtl.cosim import Case, Channel, Design, Engine
from topsieve_rtl.csr import ACCELERATOR_MAP, report_counters
from topsieve_rtl.units.accelerator_jobs import draw_job
from topsieve_rtl.units.unit import Unit
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.accelerator import AcceleratorRun, run
from topsieve_sim.timing.accelerator import AcceleratorTimes, RunStalls, WriteStalls, accelerator_times
from topsieve_sim.timing.attention import PortStalls

if TYPE_CHECKING:
    from topsieve_rtl.accelerator.on_memory import AcceleratorOnMemory

# Room for every drawn job on the largest bus.
MEMORY_BYTES = 1 << 15
_TOKENS, _HEADS = 5, 2
# Cycles of the bench's steps: a register access, and its way from the step to the machine and back.
_ACCESS_CYCLES = 4
_TO_START, _TO_ANSWER = 3, 4
_STORE, _LOAD, _WRITE, _READ, _WAIT, _STALL = range(6)
_Step = tuple[int, int, int]
# In 256: how often each channel of the memory pauses. Two drawn jobs in five run without.
_CHANCES = (0, 0, 20, 70, 130)

_CHANNELS = {
    "s_axil": "AXI4-Lite slave of the registers, 32 bits",
    "m_axi_kv": "AXI4 read master: descriptors, score factors, keys, values",
    "m_axi_q": "AXI4 read master: queries",
    "m_axi_w": "AXI4 write master: outputs, reports",
}


class _PortNotes(dict[str, str]):
    """Meaning of the AXI wires by their prefix."""

    def __missing__(self, name: str) -> str:
        return next(meaning for prefix, meaning in _CHANNELS.items() if name.startswith(f"{prefix}_"))


class AcceleratorUnit(Unit):
    """The machine on a memory; a case is a job from the registers' set-up to the memory after it.

    Drawn jobs have one or two small layers; `job_case` plays any other that fits `memory_bytes`, a power of two.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self.memory_bytes = memory_bytes

    name = "accelerator"
    # The other engines build for minutes, or run the machine for minutes.
    default_engine = Engine.VERILATOR
    default_cases = 40
    summary = "Accelerator: attention with cascade token and head pruning on tensors in memory, AXI4 and AXI4-Lite."
    port_notes: ClassVar[Mapping[str, str]] = _PortNotes(irq="interrupt, level")
    latency_note = (
        "The run of a job is the sum of its phases; `docs/accelerator.md` has them, `topsieve_sim/timing/accelerator.py` "
        "computes cycles and every performance counter exactly, stalls of the memory included."
    )

    def component(self, config: AcceleratorConfig) -> wiring.Component:
        return self._on_memory(config)

    def _on_memory(self, config: AcceleratorConfig, instance: str | None = None) -> AcceleratorOnMemory:
        from topsieve_rtl.accelerator.on_memory import AcceleratorOnMemory

        return AcceleratorOnMemory(config, self.memory_bytes, instance)

    def emitted(self, config: AcceleratorConfig) -> Design:
        from topsieve_rtl.accelerator.accelerator import Accelerator, accelerator_members

        self.built(config, lambda: accelerator_members(config))
        return Design(Accelerator(config), self.top_name(config))

    def bench(self, config: AcceleratorConfig) -> Design:
        top = self.top_name(config)
        return Design(self._on_memory(config, instance=top), f"{top}_bench")

    def documents(self, config: AcceleratorConfig, command_line: str) -> Mapping[str, str]:
        from topsieve_rtl.verilog.accelerator_files import accelerator_files

        return accelerator_files(config, self.top_name(config), command_line)

    def draw(self, config: AcceleratorConfig, generator: np.random.Generator) -> Case:
        layers = int(generator.integers(1, 3))
        job = draw_job(
            config, generator, layers, min(config.capacity, _TOKENS), queries=2, heads=_HEADS, interrupts=False
        )
        stalls = (int(generator.integers(1 << SEED_BITS)), int(generator.choice(_CHANCES)))
        return self.job_case(config, job.image, 0, job.threshold, stalls)

    def job_case(
        self,
        config: AcceleratorConfig,
        image: bytes,
        descriptor_address: int,
        threshold: int,
        stalls: tuple[int, int] = (0, 0),
    ) -> Case:
        """A job in a memory that begins with `image`.

        Parameters
        ----------
        stalls : seed, and how often in 256 each channel of the memory pauses.

        Raises
        ------
        ValueError
            the image is larger than the memory.
        """
        if len(image) > self.memory_bytes:
            raise ValueError(f"the job needs {len(image)} bytes of {self.memory_bytes}")
        steps = list(_steps(config, image, descriptor_address, threshold, stalls))
        answers = sum(operation in (_LOAD, _READ) for operation, _, _ in steps)
        return Case.through(steps, [0] * len(steps), [], answers, limit_cycles=2_000_000)

    def expect(self, config: AcceleratorConfig, case: Case) -> Mapping[str, Channel]:
        steps: list[_Step] = list(case.sources["i"].beats)
        width = config.memory.bytes_per_cycle
        image = b"".join(word.to_bytes(width, "little") for operation, _, word in steps if operation == _STORE)
        written = {place: word for operation, place, word in reversed(steps) if operation == _WRITE}
        descriptor_address, threshold = (
            written[ACCELERATOR_MAP.register(name).offset]
            for name in ("descriptor_address_lo", "progressive_threshold")
        )
        golden = run(image, descriptor_address, config, threshold)
        times = _times(config, golden, next((step for step in steps if step[0] == _STALL), None))
        registers = {counter.offset: counter.name for counter in ACCELERATOR_MAP.counters}
        counts = report_counters(times)

        taken, entered, answered, answers = 0, [], [], []
        started = 0
        for operation, place, word in steps:
            entered.append(taken)
            if operation == _LOAD:
                answered.append(taken + 1)
                answers.append(int.from_bytes(golden.memory[place : place + width], "little"))
            if operation == _READ:
                answered.append(taken + _TO_ANSWER)
                # Beside the counters, the status is read: done.
                answers.append(counts[registers[place]] if place in registers else 0b10)
            if operation in (_STORE, _LOAD, _STALL):
                taken += 1
            elif operation == _WAIT:
                # The interrupt is high in the cycle after the last busy one.
                taken = max(taken + 1, started + times.cycles + 1) + 1
            else:
                if operation == _WRITE and (place, word) == (ACCELERATOR_MAP.register("control").offset, 1):
                    started = taken + _TO_START
                taken += _ACCESS_CYCLES
        return {"i": Channel(entered, steps), "o": Channel(answered, answers)}

    def compared(self, config: AcceleratorConfig, case: Case) -> Mapping[str, int]:
        counts = Counter(operation for operation, _, _ in case.sources["i"].beats)
        return {
            "bits of memory": 8 * config.memory.bytes_per_cycle * counts[_LOAD],
            "status and performance counters": counts[_READ],
            "jobs under stalls of the memory": counts[_STALL],
        }


def _times(config: AcceleratorConfig, golden: AcceleratorRun, stall: _Step | None) -> AcceleratorTimes:
    """Times of a job behind the step `stall`."""
    if stall is None:
        return accelerator_times(config, golden)
    length = 1 << 12
    while True:
        times = accelerator_times(config, golden, run_stalls(stall[2], stall[1], length))
        # No pattern can end within a run that is shorter than it.
        if times.cycles + _TO_START < length:
            return times
        length *= 2


def run_stalls(seed: int, chance: int, length: int) -> RunStalls:
    """The stalls of `AcceleratorOnMemory` after a STALL of `seed` and `chance`, its start right behind it; `length` values."""
    found = {name: stall_cycles(seed, place, chance, length) for place, name in enumerate(STALLS)}

    def ready(name: str) -> NDArray[np.bool_]:
        # The source runs on from the STALL; patterns begin with the start.
        return found[name][_TO_START:] == 0

    # The first word of a run follows no other.
    ports = (
        PortStalls(ready(f"{port}_ready"), found[f"{port}_delay"], np.append(0, found[f"{port}_gap"]))
        for port in ("kv", "q")
    )
    return RunStalls(*ports, WriteStalls(ready("aw_ready"), ready("w_ready"), found["b_delay"]))


def _steps(
    config: AcceleratorConfig, image: bytes, descriptor_address: int, threshold: int, stalls: tuple[int, int]
) -> Iterator[_Step]:
    """Store the memory, run the job, read status and counters, load the memory."""
    width = config.memory.bytes_per_cycle
    places = range(0, len(image), width)

    def write(register: str, value: int) -> _Step:
        return (_WRITE, ACCELERATOR_MAP.register(register).offset, value)

    for place in places:
        yield (_STORE, place, int.from_bytes(image[place : place + width], "little"))
    yield write("descriptor_address_lo", descriptor_address)
    yield write("progressive_threshold", threshold)
    yield write("interrupt_enable", 0b11)
    yield write("control", 0b010)
    seed, chance = stalls
    if chance:
        yield (_STALL, chance, seed)
    yield write("control", 0b001)
    yield (_WAIT, 0, 0)
    yield (_READ, ACCELERATOR_MAP.register("status").offset, 0)
    yield write("control", 0b100)
    for counter in ACCELERATOR_MAP.counters:
        yield (_READ, counter.offset, 0)
    for place in places:
        yield (_LOAD, place, 0)
