"""The accelerator: AXI4-Lite registers, two AXI4 read ports, an AXI4 write port, and everything between them."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.accelerator.cascade import CascadeUnit
from topsieve_rtl.accelerator.sequencer import Sequencer
from topsieve_rtl.accelerator.traffic import TrafficMeter
from topsieve_rtl.accelerator.writer import RowWriter
from topsieve_rtl.attention.core import AttentionCore
from topsieve_rtl.attention.core_layouts import RowNumber
from topsieve_rtl.csr import ACCELERATOR_MAP, RegisterFile, fixed_fields
from topsieve_rtl.csr.register_file import slave_members
from topsieve_rtl.memory import PlaneFetcher
from topsieve_rtl.memory.axi import connect_read_port, connect_write_port, read_port_members, write_port_members
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.accelerator_latency import key_value_fetch_shape, query_fetch_shape
from topsieve_sim.golden.descriptor import Flag
from topsieve_sim.report.model import Stall, Traffic, Unit
from topsieve_sim.timing.accounting import BUSY, DONE, INPUT, MEMORY_WAIT

# Three days at a gigahertz; the upper bits of the registers read 0.
COUNTER_BITS = 48
# Ports and what they are called in the names of wires.
_KEY_VALUE, _QUERY, _WRITE = "kv", "q", "w"
# Units of the core in the order of its accounting, and the causes in the order of its codes.
_CORE_UNITS = (
    Unit.MEMORY,
    Unit.DOT_PRODUCT,
    Unit.SOFTMAX_FILL,
    Unit.SOFTMAX_EXPONENTIAL,
    Unit.SOFTMAX_NORMALISE,
    Unit.VALUE_TOPK,
    Unit.WEIGHTED_SUM,
)
_CAUSES = (None, Stall.INPUT, Stall.MEMORY, Stall.DOWNSTREAM, Stall.DRAINED)


class _Port:
    """The wires of one AXI4 port under the names that the connecting functions use."""

    def __init__(self, top: Any, name: str) -> None:
        self._top, self._name = top, name

    def __getattr__(self, wire: str) -> Any:
        return getattr(self._top, _renamed(wire, self._name))


def _renamed(wire: str, port: str) -> str:
    return wire.replace("m_axi_", f"m_axi_{port}_", 1)


def _port_members(port: str, members: dict[str, wiring.Member]) -> dict[str, wiring.Member]:
    return {_renamed(wire, port): member for wire, member in members.items()}


def accelerator_members(config: AcceleratorConfig) -> dict[str, wiring.Member]:
    """The wires of the machine.

    Raises
    ------
    ValueError
        the configuration has no AXI4 ports.
    """
    if not config.memory.has_fetchers:
        raise ValueError("memory.model must be axi: the machine reaches its memory over AXI4")
    shape = key_value_fetch_shape(config)
    read = read_port_members(shape.data_bits, shape.address_bits, shape.id_bits)
    return {
        **slave_members(ACCELERATOR_MAP.address_bits),
        **_port_members(_KEY_VALUE, read),
        **_port_members(_QUERY, read),
        **_port_members(_WRITE, write_port_members(shape.data_bits, shape.address_bits, shape.id_bits)),
        "irq": Out(1),
    }


class Accelerator(wiring.Component):
    """The whole machine; `docs/accelerator.md`. Bits: `topsieve_sim.golden.accelerator`.

    Parameters
    ----------
    config : a machine whose memory has AXI4 ports (`memory.model: axi`).

    Members
    -------
    s_axil_* : AXI4-Lite slave of the registers, `docs/registers.md`.
    m_axi_kv_* : AXI4 read master: descriptors, score factors, keys, values.
    m_axi_q_* : AXI4 read master: queries.
    m_axi_w_* : AXI4 write master: outputs, reports.
    irq : Out(1), level.

    Attributes
    ----------
    registers, sequencer, core, cascade, writer : the parts, for tests and proofs.

    Raises
    ------
    ValueError
        the configuration has no AXI4 ports.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        members = accelerator_members(config)
        self.config = config
        self.registers = RegisterFile(ACCELERATOR_MAP, fixed_fields(config), COUNTER_BITS)
        self.sequencer = Sequencer(config)
        self.core = AttentionCore(config)
        self.cascade = CascadeUnit(config)
        self.writer = RowWriter(config)
        self.key_values = PlaneFetcher(key_value_fetch_shape(config))
        self.queries = PlaneFetcher(query_fetch_shape(config))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.registers = registers = self.registers
        m.submodules.sequencer = sequencer = self.sequencer
        m.submodules.core = core = self.core
        m.submodules.cascade = cascade = self.cascade
        m.submodules.writer = writer = self.writer
        m.submodules.key_values = self.key_values
        m.submodules.queries = self.queries

        for name, member in slave_members(ACCELERATOR_MAP.address_bits).items():
            inner, outer = getattr(registers, name), getattr(self, name)
            m.d.comb += inner.eq(outer) if member.flow is In else outer.eq(inner)
        m.d.comb += [
            self.irq.eq(registers.interrupt),
            sequencer.start.eq(registers.control_start),
            sequencer.descriptor_address.eq(
                Cat(registers.descriptor_address_lo_value, registers.descriptor_address_hi_value)
            ),
            sequencer.threshold.eq(registers.progressive_threshold_value),
            registers.status_busy.eq(sequencer.busy),
            registers.status_done_event.eq(sequencer.done),
            registers.status_error_event.eq(sequencer.error),
            registers.interrupt_status_done_event.eq(sequencer.interrupts),
            registers.interrupt_status_error_event.eq(sequencer.error != 0),
        ]

        wiring.connect(m, sequencer.cascade, cascade.command)
        wiring.connect(m, sequencer.job, core.job)
        wiring.connect(m, cascade.record, writer.record)
        m.d.comb += [
            sequencer.live_tokens.eq(cascade.live_tokens),
            sequencer.live_heads.eq(cascade.live_heads),
            sequencer.alive.eq(cascade.alive),
            sequencer.core_done.eq(core.done),
            sequencer.writer_idle.eq(writer.idle),
            sequencer.write_failed.eq(writer.failed),
            writer.clear.eq(sequencer.start & ~sequencer.busy),
            writer.job.eq(sequencer.writer_job),
            writer.reports.eq(sequencer.reports),
            writer.head_write.eq(sequencer.live_head_write),
            writer.token_write.eq(cascade.token_write),
            core.head_write.eq(sequencer.head_write),
            core.factor_write.eq(sequencer.factor_write),
            core.token_write.eq(cascade.token_write),
        ]
        self._connect_memory(m)
        self._connect_taps(m)
        self._count(m)
        return m

    def _connect_memory(self, m: Module) -> None:
        """The ports; the first fetcher serves the sequencer or the core."""
        sequencer, core, writer, fetcher = self.sequencer, self.core, self.writer, self.key_values
        own = sequencer.fetches
        m.d.comb += [
            fetcher.command.valid.eq(core.fetch_command.valid & ~own),
            fetcher.command.payload.eq(core.fetch_command.payload),
            core.fetch_command.ready.eq(fetcher.command.ready & ~own),
            core.fetched.valid.eq(fetcher.o.valid & ~own),
            core.fetched.payload.eq(fetcher.o.payload),
            fetcher.o.ready.eq(core.fetched.ready),
            sequencer.fetched.valid.eq(fetcher.o.valid & own),
            sequencer.fetched.payload.eq(fetcher.o.payload),
        ]
        with m.If(own):
            m.d.comb += [
                fetcher.command.valid.eq(sequencer.command.valid),
                fetcher.command.payload.eq(sequencer.command.payload),
                sequencer.command.ready.eq(fetcher.command.ready),
                fetcher.o.ready.eq(sequencer.fetched.ready),
            ]
        wiring.connect(m, core.fetch_index, fetcher.index)
        wiring.connect(m, core.query_command, self.queries.command)
        wiring.connect(m, core.query_index, self.queries.index)
        wiring.connect(m, self.queries.o, core.query_fetched)
        connect_read_port(m, _Port(self, _KEY_VALUE), fetcher.address, fetcher.data)
        connect_read_port(m, _Port(self, _QUERY), self.queries.address, self.queries.data)
        connect_write_port(m, _Port(self, _WRITE), writer.address, writer.word, writer.response)
        failures = [
            part.o.valid & part.o.ready & part.o.payload.final & (part.o.payload.status != 0)
            for part in (fetcher, self.queries)
        ]
        m.d.comb += sequencer.read_failed.eq(Cat(*failures).any())

    def _connect_taps(self, m: Module) -> None:
        """Rows from the core to the writer; what the cascade unit adds on the way."""
        sequencer, core, cascade, writer = self.sequencer, self.core, self.cascade, self.writer
        heads = range(self.config.importance.heads)
        m.submodules.slot_heads = slot_heads = memory.Memory(shape=heads, depth=len(heads), init=[])
        slots, reader = slot_heads.write_port(), slot_heads.read_port(domain="comb")
        number = data.View(RowNumber(self.config), core.o.payload.row)
        tap, live_head = core.probability_tap, sequencer.live_head_write
        leaves = Signal()
        self._leaves = leaves
        wiring.connect(m, core.o, writer.row)
        m.d.comb += [
            leaves.eq(core.o.valid & core.o.ready),
            slots.en.eq(live_head.valid),
            slots.addr.eq(live_head.slot),
            slots.data.eq(live_head.head),
            reader.addr.eq(number.head),
        ]
        # The cascade unit may stand far from the core, and needs the last row only after the writer has had its response.
        m.d.sync += [
            cascade.probability_valid.eq(tap.valid & _flag(sequencer, Flag.ACCUMULATE_TOKENS)),
            cascade.probabilities.eq(tap.lanes),
            cascade.probability_word.eq(tap.word),
            cascade.output_valid.eq(leaves & _flag(sequencer, Flag.ACCUMULATE_HEADS)),
            cascade.output_elements.eq(core.o.payload.elements),
            cascade.output_head.eq(reader.data),
        ]
        with m.If(core.job.valid & core.job.ready):
            m.d.sync += cascade.repeated.eq(0)
        with m.Elif(core.repeated):
            m.d.sync += cascade.repeated.eq(cascade.repeated + 1)

    def _count(self, m: Module) -> None:
        """What the performance counters add, a few cycles late: counters may stand far from what they count.

        The bytes of a job's last command come well before its end, and no master can take a snapshot within three cycles of it.
        """
        sequencer, core, cascade, registers = self.sequencer, self.core, self.cascade, self.registers
        m.submodules.traffic = traffic = TrafficMeter(self.config)
        command = core.fetch_command
        m.d.comb += traffic.head_dim.eq(sequencer.writer_job.head_dim)
        m.d.sync += [
            registers.count_cycles.eq(sequencer.busy),
            registers.count_query_rows.eq(self._leaves),
            registers.count_lsb_rows.eq(core.repeated),
            traffic.fetched.eq(command.valid & command.ready),
            traffic.plane.eq(command.payload.plane),
            traffic.rows.eq(command.payload.rows),
            traffic.queried.eq(core.query_command.valid & core.query_command.ready),
            traffic.written.eq(self._leaves),
            traffic.recorded.eq(cascade.record.valid & cascade.record.ready),
            traffic.control.eq(sequencer.command.valid & sequencer.command.ready),
            traffic.control_bytes.eq(sequencer.command.payload.elements),
            *(getattr(registers, f"count_dram_bytes_{kind}").eq(getattr(traffic, kind)) for kind in Traffic),
        ]
        for unit, busy in ((Unit.IMPORTANCE, cascade.accumulates), (Unit.CASCADE_TOPK, cascade.prunes)):
            m.d.sync += [
                getattr(registers, f"count_{unit}_busy_cycles").eq(busy),
                getattr(registers, f"count_{unit}_stall_{Stall.DRAINED}_cycles").eq(sequencer.busy & ~busy),
            ]
        causes = [self._memory_cause(m), *list(core.activity)[1:]]
        for unit, cause in zip(_CORE_UNITS, causes, strict=True):
            for code, stall in enumerate(_CAUSES):
                name = f"{unit}_busy_cycles" if code == BUSY else f"{unit}_stall_{stall}_cycles"
                m.d.sync += getattr(registers, f"count_{name}").eq(sequencer.busy & (cause == code))

    def _memory_cause(self, m: Module) -> Value:
        """What the memory of the key/value port does in a job of the core, coded as in `topsieve_sim.timing.accounting`."""
        shape, address, words = self.key_values.shape, self.key_values.address, self.key_values.data
        unanswered = Signal(range(shape.max_outstanding + 2))
        asked, comes = address.valid & address.ready, words.valid & words.ready
        m.d.sync += unanswered.eq(unanswered + asked - (comes & words.payload.last))
        waits = address.valid | (unanswered != 0)
        in_job = ~(self.core.idle | self.core.done)
        return Mux(in_job, Mux(comes, BUSY, Mux(waits, MEMORY_WAIT, INPUT)), DONE)


def _flag(sequencer: Sequencer, flag: Flag) -> Any:
    return sequencer.flags[flag.bit_length() - 1]
