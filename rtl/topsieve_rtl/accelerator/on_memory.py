"""The accelerator with a memory behind its ports and a driver before its registers, for benches on any simulator."""

from __future__ import annotations

from typing import Any

from amaranth import ClockSignal, Instance, Module, Mux, ResetSignal, Signal
from amaranth.lib import data, enum, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.accelerator.accelerator import Accelerator, accelerator_members
from topsieve_rtl.accelerator.stall_source import CHANCE_BITS, SEED_BITS, STALLS, StallSource
from topsieve_rtl.csr import ACCELERATOR_MAP
from topsieve_rtl.csr.table import WORD_BITS
from topsieve_rtl.stream import Fifo
from topsieve_sim.arch import AcceleratorConfig

ADDRESS_BITS = 32
# Bursts that a port keeps before it answers them; as many as the machine may ask for, if that is more.
_BURSTS = 16


class Operation(enum.Enum, shape=3):
    """What the driver does next."""

    STORE = 0
    """Write a word of the memory."""
    LOAD = 1
    """Answer a word of the memory."""
    WRITE = 2
    """Write a register."""
    READ = 3
    """Answer a register."""
    WAIT = 4
    """Until the interrupt is high."""
    STALL = 5
    """From the next cycle on, stalls of all channels of the memory: `data` is the seed, `address` the chance in 256."""


class Step(data.StructLayout):
    """An operation on the byte `address` of the memory or of the registers."""

    def __init__(self, data_bits: int) -> None:
        super().__init__({"operation": Operation, "address": ADDRESS_BITS, "data": max(data_bits, WORD_BITS)})


class _State(enum.Enum, shape=2):
    IDLE = 0
    WRITING = 1
    READING = 2
    WAITING = 3


class AcceleratorOnMemory(wiring.Component):
    """Takes steps one after the other and answers those that read.

    The memory answers as `docs/accelerator.md` says ("Memory port"); a write burst is answered `latency_cycles` cycles
    after the cycle behind its last word. After a STALL, each of `STALLS` pauses at random: address and write channels by the
    cycle, a burst's first word or response by the burst, further words by the word.

    Parameters
    ----------
    config : the machine.
    memory_bytes : a power of two; higher address bits are ignored.
    instance : name of a Verilog module to stand for the machine; by default the machine is inside.

    Members
    -------
    i : In(stream.Signature(Step))
    o : Out(stream.Signature(data)), the answers of LOAD and READ, in order.
    """

    def __init__(self, config: AcceleratorConfig, memory_bytes: int, instance: str | None = None) -> None:
        self.config = config
        self.instance = instance
        self._members = accelerator_members(config)
        self.width = config.memory.bytes_per_cycle
        self.words = memory_bytes // self.width
        self._depth = max(_BURSTS, config.memory.axi.outstanding)
        step = Step(8 * self.width)
        super().__init__({"i": In(stream.Signature(step)), "o": Out(stream.Signature(step["data"].shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        wires = self._machine(m)
        low = self.width.bit_length() - 1
        m.submodules.memory = words = memory.Memory(shape=8 * self.width, depth=self.words, init=[])
        self._clock = Signal(32)
        m.d.sync += self._clock.eq(self._clock + 1)
        load, seed, chance = Signal(), Signal(SEED_BITS), Signal(CHANCE_BITS)
        step = self.i.payload
        m.d.comb += [
            load.eq(self.i.valid & self.i.ready & (step.operation == Operation.STALL)),
            seed.eq(step.data),
            chance.eq(step.address),
        ]
        self._stalls = {name: StallSource(place, load, seed, chance) for place, name in enumerate(STALLS)}
        for name, source in self._stalls.items():
            m.submodules[f"{name}_stalls"] = source
            if name.endswith("ready"):
                m.d.comb += source.advance.eq(1)
        for name in ("kv", "q"):
            self._read_port(m, name, wires, words.read_port(domain="comb"), low)
        self._write_port(m, wires, words.write_port(granularity=8), low)
        self._steps(m, wires, words.write_port(), words.read_port(domain="comb"), low)
        return m

    def _machine(self, m: Module) -> Any:
        if self.instance is None:
            m.submodules.machine = machine = Accelerator(self.config)
            return machine
        wires: Any = type("Wires", (), {})()
        ports: dict[str, Any] = {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
        for name, member in self._members.items():
            signal = Signal(member.shape, name=name)
            setattr(wires, name, signal)
            ports[f"{'i' if member.flow is In else 'o'}_{name}"] = signal
        m.submodules.machine = Instance(self.instance, **ports)
        return wires

    def _read_port(self, m: Module, name: str, wires: Any, port: Any, low: int) -> None:
        def wire(suffix: str) -> Any:
            return getattr(wires, f"m_axi_{name}_{suffix}")

        burst = data.StructLayout({"word": ADDRESS_BITS, "left": 8, "due": 32})
        m.submodules[f"{name}_bursts"] = bursts = Fifo(burst, self._depth)
        place, head = Signal(8, name=f"{name}_place"), bursts.o.payload
        last, crosses = place == head.left, wire("rvalid") & wire("rready")
        pause = Signal.like(self._stalls[f"{name}_gap"].cycles, name=f"{name}_pause")
        ready, delay, gap = (self._stalls[f"{name}_{what}"] for what in ("ready", "delay", "gap"))
        m.d.comb += [
            wire("arready").eq(bursts.i.ready & (ready.cycles == 0)),
            bursts.i.valid.eq(wire("arvalid") & (ready.cycles == 0)),
            delay.advance.eq(wire("arvalid") & wire("arready")),
            gap.advance.eq(crosses),
            bursts.i.payload.word.eq(wire("araddr") >> low),
            bursts.i.payload.left.eq(wire("arlen")),
            bursts.i.payload.due.eq(self._clock + 1 + self.config.memory.latency_cycles + delay.cycles),
            port.addr.eq(head.word + place),
            # The clock wraps after 2^32 cycles, as due times do.
            wire("rvalid").eq(bursts.o.valid & ~(self._clock - head.due)[31] & (pause == 0)),
            wire("rdata").eq(port.data),
            wire("rlast").eq(last),
            bursts.o.ready.eq(crosses & last),
        ]
        with m.If(crosses):
            m.d.sync += [place.eq(Mux(last, 0, place + 1)), pause.eq(gap.cycles)]
        with m.Elif(pause != 0):
            m.d.sync += pause.eq(pause - 1)

    def _write_port(self, m: Module, wires: Any, port: Any, low: int) -> None:
        m.submodules.responses = responses = Fifo(32, self._depth)
        busy, word, taken = Signal(), Signal(ADDRESS_BITS), Signal()
        delay = self._stalls["b_delay"]
        m.d.comb += [
            wires.m_axi_w_awready.eq(~busy & responses.i.ready & (self._stalls["aw_ready"].cycles == 0)),
            wires.m_axi_w_wready.eq(busy & (self._stalls["w_ready"].cycles == 0)),
            taken.eq(wires.m_axi_w_wvalid & wires.m_axi_w_wready),
            port.en.eq(Mux(taken, wires.m_axi_w_wstrb, 0)),
            port.addr.eq(word),
            port.data.eq(wires.m_axi_w_wdata),
            responses.i.valid.eq(taken & wires.m_axi_w_wlast),
            responses.i.payload.eq(self._clock + 1 + self.config.memory.latency_cycles + delay.cycles),
            delay.advance.eq(responses.i.valid),
            wires.m_axi_w_bvalid.eq(responses.o.valid & ~(self._clock - responses.o.payload)[31]),
            responses.o.ready.eq(wires.m_axi_w_bvalid & wires.m_axi_w_bready),
        ]
        with m.If(wires.m_axi_w_awvalid & wires.m_axi_w_awready):
            m.d.sync += [busy.eq(1), word.eq(wires.m_axi_w_awaddr >> low)]
        with m.Elif(taken):
            m.d.sync += [busy.eq(~wires.m_axi_w_wlast), word.eq(word + 1)]

    def _steps(self, m: Module, wires: Any, writer: Any, reader: Any, low: int) -> None:
        m.submodules.answers = answers = Fifo(self.o.payload.shape(), 2)
        wiring.connect(m, answers.o, wiring.flipped(self.o))
        state, step, taken = Signal(_State), self.i.payload, Signal()
        address_waits, data_waits = Signal(), Signal()
        address = Signal(ACCELERATOR_MAP.address_bits)
        word = Signal(WORD_BITS)
        m.d.comb += [
            self.i.ready.eq((state == _State.IDLE) & answers.i.ready),
            taken.eq(self.i.valid & self.i.ready),
            writer.en.eq(taken & (step.operation == Operation.STORE)),
            writer.addr.eq(step.address >> low),
            writer.data.eq(step.data),
            reader.addr.eq(step.address >> low),
            wires.s_axil_awaddr.eq(address),
            wires.s_axil_araddr.eq(address),
            wires.s_axil_wdata.eq(word),
            wires.s_axil_wstrb.eq(-1),
            wires.s_axil_awvalid.eq((state == _State.WRITING) & address_waits),
            wires.s_axil_wvalid.eq((state == _State.WRITING) & data_waits),
            wires.s_axil_arvalid.eq((state == _State.READING) & address_waits),
            wires.s_axil_bready.eq(1),
            wires.s_axil_rready.eq(1),
        ]
        with m.If(taken):
            m.d.sync += [address.eq(step.address), word.eq(step.data), address_waits.eq(1), data_waits.eq(1)]
            with m.Switch(step.operation):
                with m.Case(Operation.LOAD):
                    m.d.comb += [answers.i.valid.eq(1), answers.i.payload.eq(reader.data)]
                with m.Case(Operation.WRITE):
                    m.d.sync += state.eq(_State.WRITING)
                with m.Case(Operation.READ):
                    m.d.sync += state.eq(_State.READING)
                with m.Case(Operation.WAIT):
                    m.d.sync += state.eq(_State.WAITING)
        with m.Switch(state):
            with m.Case(_State.WRITING):
                with m.If(wires.s_axil_awready):
                    m.d.sync += address_waits.eq(0)
                with m.If(wires.s_axil_wready):
                    m.d.sync += data_waits.eq(0)
                with m.If(wires.s_axil_bvalid):
                    m.d.sync += state.eq(_State.IDLE)
            with m.Case(_State.READING):
                with m.If(wires.s_axil_arready):
                    m.d.sync += address_waits.eq(0)
                with m.If(wires.s_axil_rvalid):
                    m.d.comb += [answers.i.valid.eq(1), answers.i.payload.eq(wires.s_axil_rdata)]
                    m.d.sync += state.eq(_State.IDLE)
            with m.Case(_State.WAITING), m.If(wires.irq):
                m.d.sync += state.eq(_State.IDLE)
