# amaranth: UnusedElaboratable=no
"""The register file against a plain model, under any operations, strobes, events and stalls."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from rtl.harness.bus_bench import run_bus_bench
from rtl.harness.csr_model import RegisterModel
from topsieve_rtl.csr import ACCELERATOR_MAP, Access, Driver, RegisterFile, RegisterMap, fixed_fields
from topsieve_rtl.formal import combinational_paths
from topsieve_sim.arch import load_config

FIXED = fixed_fields(load_config("tiny"))
# The counters are all alike; a few of every width keep Amaranth's simulator quick.
NAMED = ("cycles", "memory_busy_cycles", "softmax_fill_stall_memory_cycles", "dram_bytes_key_msb", "dram_bytes_weight")
TABLE = RegisterMap(
    "few_counters",
    ACCELERATOR_MAP.registers,
    tuple(counter for counter in ACCELERATOR_MAP.counters if counter.name in NAMED),
)
OFFSETS = [register.offset for register in TABLE.all_registers()]
EVENTS = [
    (register.name, field.name, field.bits)
    for register in TABLE.registers
    for field in register.fields
    if field.access is Access.WRITE_ONE_TO_CLEAR
]
PULSES = [
    (register.name, field.name)
    for register in TABLE.registers
    for field in register.fields
    if field.access is Access.PULSE
]

offsets = st.sampled_from(OFFSETS) | st.integers(0, (1 << TABLE.address_bits) - 1)
control = st.just(TABLE.register("control").offset)
words = st.sampled_from([0, 1, 2, 4, 6, 0xFFFFFFFF]) | st.integers(0, 0xFFFFFFFF)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("read"), offsets),
        st.tuples(st.just("write"), offsets | control, words, st.just(15) | st.integers(0, 15)),
        st.sampled_from(EVENTS).flatmap(
            lambda event: st.tuples(st.just("event"), st.just(event[:2]), st.integers(0, (1 << event[2]) - 1))
        ),
        st.tuples(st.just("busy"), st.integers(0, 1)),
        st.sampled_from(TABLE.counters).flatmap(
            lambda counter: st.tuples(
                st.just("count"), st.just(counter.name), st.integers(0, (1 << counter.step_bits) - 1), st.integers(1, 5)
            )
        ),
    ),
    min_size=1,
    max_size=40,
)


class Bus:
    """AXI4-Lite master and the hardware around the register file, in Amaranth's simulator, with drawn pauses."""

    def __init__(self, context, unit: RegisterFile, seed: int) -> None:
        self.context, self.unit = context, unit
        self.draw = random.Random(seed)
        self.pulses: list[tuple[str, str, int]] = []

    async def tick(self) -> None:
        for register, name in PULSES:
            if value := self.context.get(getattr(self.unit, f"{register}_{name}")):
                self.pulses.append((register, name, value))
        await self.context.tick()

    async def _offer(self, channels: dict[str, dict[str, int]], answer: str) -> None:
        """Offer each channel after a pause of its own until it is taken, then take the answer after another."""
        waits = {channel: self.draw.choice([0, 0, 1, 3]) for channel in channels}
        patience = self.draw.choice([0, 0, 2, 5])
        done = False
        while not done:
            for channel, wait in list(waits.items()):
                if wait == 0:
                    self._set(f"{channel}valid", 1)
                    for name, value in channels[channel].items():
                        self._set(f"{channel}{name}", value)
            taken = [channel for channel, wait in waits.items() if wait == 0 and self._get(f"{channel}ready")]
            self._set(f"{answer}ready", not waits and patience == 0)
            if not waits and self._get(f"{answer}valid"):
                done = patience == 0
                self.answer = {name: self._get(f"{answer}{name}") for name in self.names}
                patience -= patience > 0
            await self.tick()
            for channel in list(waits):
                waits[channel] -= waits[channel] > 0
                if channel in taken:
                    del waits[channel]
                    self._set(f"{channel}valid", 0)
        self._set(f"{answer}ready", 0)

    def _get(self, name: str) -> int:
        return self.context.get(getattr(self.unit, f"s_axil_{name}"))

    def _set(self, name: str, value: int) -> None:
        self.context.set(getattr(self.unit, f"s_axil_{name}"), value)

    async def read(self, offset: int) -> tuple[int, int]:
        self.names = ("data", "resp")
        await self._offer({"ar": {"addr": offset}}, "r")
        return self.answer["data"], self.answer["resp"]

    async def write(self, offset: int, data: int, strobes: int) -> int:
        self.names = ("resp",)
        await self._offer({"aw": {"addr": offset}, "w": {"data": data, "strb": strobes}}, "b")
        return self.answer["resp"]


def play(drawn: list[tuple], seed: int, counter_bits: int) -> None:
    unit = RegisterFile(TABLE, FIXED, counter_bits)
    model = RegisterModel(TABLE, FIXED, counter_bits)

    async def bench(context) -> None:
        bus = Bus(context, unit, seed)
        await bus.tick()
        for kind, *arguments in drawn:
            if kind == "read":
                assert await bus.read(*arguments) == model.read(*arguments)
            elif kind == "write":
                assert await bus.write(*arguments) == model.write(*arguments)
            elif kind == "event":
                (register, name), value = arguments
                port = getattr(unit, f"{register}_{name}_event")
                context.set(port, value)
                await bus.tick()
                context.set(port, 0)
                model.event(register, name, value)
            elif kind == "busy":
                context.set(unit.status_busy, arguments[0])
                model.inputs["status", "busy"] = arguments[0]
            else:
                name, step, cycles = arguments
                context.set(getattr(unit, f"count_{name}"), step)
                for _ in range(cycles):
                    await bus.tick()
                context.set(getattr(unit, f"count_{name}"), 0)
                model.add(name, step, cycles)
            # A pulse acts in the cycle after its write.
            await bus.tick()
            assert context.get(unit.interrupt) == model.interrupt
            assert bus.pulses == model.pulses
        for register, name in model.stored:
            if TABLE.register(register).field(name).access in (Access.READ_WRITE, Access.WRITE_ONE_TO_CLEAR):
                assert context.get(getattr(unit, f"{register}_{name}")) == model.stored[register, name]

    simulator = Simulator(unit)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()


@settings(max_examples=50, deadline=None)
@given(operations, st.integers(0, 2**16), st.sampled_from([64, 40, 6]))
def test_software_sees_the_model(drawn, seed, counter_bits):
    play(drawn, seed, counter_bits)


@pytest.mark.full
@settings(max_examples=1000, deadline=None)
@given(operations, st.integers(0, 2**16), st.sampled_from([64, 40, 6]))
def test_software_sees_the_model_at_length(drawn, seed, counter_bits):
    play(drawn, seed, counter_bits)


def test_a_busy_machine_is_read_as_one():
    """Everything at once: fixed fields, an error, an interrupt, a snapshot with clear, and a hole in the map."""
    status, enable = TABLE.register("status"), TABLE.register("interrupt_enable")
    play(
        [
            *(("read", offset) for offset in OFFSETS),
            ("busy", 1),
            ("event", ("status", "error"), 7),
            ("event", ("status", "error"), 9),
            ("read", status.offset),
            ("write", enable.offset, 3, 15),
            ("event", ("interrupt_status", "error"), 1),
            ("count", "dram_bytes_key_msb", 0x7FFF, 5),
            ("write", 0x20, 0b110, 15),
            ("count", "dram_bytes_key_msb", 1, 1),
            *(("read", offset) for offset in OFFSETS),
            ("write", 0x20, 0b100, 15),
            *(("read", offset) for offset in OFFSETS),
            ("write", status.offset, 0x0100, 0b0001),
            ("read", status.offset),
            ("write", status.offset, 0x0100, 0b0010),
            ("read", status.offset),
            ("read", 0x1C),
            ("write", 0x1C, 1, 15),
        ],
        seed=1,
        counter_bits=64,
    )


def test_an_axi_lite_master_drives_the_whole_map():
    run_bus_bench(RegisterFile(ACCELERATOR_MAP, FIXED), "topsieve_csr", "rtl.harness.csr_bench")


def test_no_port_reaches_another_without_a_register():
    """Levels that hardware drives are read through a register too."""
    assert combinational_paths(RegisterFile(TABLE, FIXED)) == []


def test_parameters_are_checked():
    with pytest.raises(ValueError, match="counter_bits must be from 1 to 64, got 65"):
        RegisterFile(TABLE, FIXED, 65)
    with pytest.raises(ValueError, match=r"control.start is pulse of 1 bits, it cannot be 1"):
        RegisterFile(TABLE, {("control", "start"): 1})


def test_the_driver_names_registers_and_fields():
    model = RegisterModel(TABLE, FIXED)
    driver = Driver(TABLE, lambda offset: model.read(offset)[0], lambda offset, word: model.write(offset, word, 15))
    driver.interrupt_enable.write(done=1)
    driver.interrupt_enable.write(error=1)
    assert driver.interrupt_enable.read() == {"done": 1, "error": 1}
    model.event("status", "error", 5)
    model.event("status", "done", 1)
    driver.status.write(done=1)
    assert driver.status.read() == {"busy": 0, "done": 0, "error": 5}
    driver.control.write(start=1)
    assert model.pulses == [("control", "start", 1)]
    model.add("dram_bytes_weight", 3, 1 << 33)
    assert driver.counters() == {**dict.fromkeys(NAMED, 0), "dram_bytes_weight": 3 << 33}
    with pytest.raises(ValueError, match=r"status.busy is read only"):
        driver.status.write(busy=1)
    with pytest.raises(ValueError, match=r"status.error has 8 bits, got 256"):
        driver.status.write(error=256)
    with pytest.raises(KeyError, match="register status has no field nothing"):
        driver.status.write(nothing=1)
    with pytest.raises(AttributeError, match="no register nothing"):
        driver.nothing.read()
