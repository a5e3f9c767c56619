"""The AXI4-Lite slave of a register map."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.csr.table import WORD_BITS, WORD_BYTES, Access, Field, Register, RegisterMap

OKAY, SLAVE_ERROR = 0b00, 0b10


def slave_members(address_bits: int) -> dict[str, wiring.Member]:
    """The wires of an AXI4-Lite slave of 32 bits, named as integration tools infer them: `s_axil_awaddr` and so on."""
    return {
        "s_axil_awaddr": In(address_bits),
        "s_axil_awprot": In(3),
        "s_axil_awvalid": In(1),
        "s_axil_awready": Out(1),
        "s_axil_wdata": In(WORD_BITS),
        "s_axil_wstrb": In(WORD_BYTES),
        "s_axil_wvalid": In(1),
        "s_axil_wready": Out(1),
        "s_axil_bresp": Out(2),
        "s_axil_bvalid": Out(1),
        "s_axil_bready": In(1),
        "s_axil_araddr": In(address_bits),
        "s_axil_arprot": In(3),
        "s_axil_arvalid": In(1),
        "s_axil_arready": Out(1),
        "s_axil_rdata": Out(WORD_BITS),
        "s_axil_rresp": Out(2),
        "s_axil_rvalid": Out(1),
        "s_axil_rready": In(1),
    }


class RegisterFile(wiring.Component):
    """Every register of `table`, one read and one write at a time.

    Address and data of a write are taken in any order and held; the write happens in the cycle after the later one,
    once the response before it has left. A read is answered in the second cycle after its address. `valid`, `ready`
    and payloads are functions of registers alone.

    Parameters
    ----------
    table : the map. With counters, it has the pulses `control.clear` and `control.snapshot`.
    fixed : values of `ro` fields that never change, and other resets of `rw` fields: (register, field) -> value.
    counter_bits : width of the performance counters, at most 64; they wrap.

    Members
    -------
    s_axil_* : `slave_members(table.address_bits)`.
    <register>_<field> : an input for `ro` fields that are not fixed; an output for `rw`, `w1c` and `pulse` fields.
    <register>_<field>_event : In, sets a `w1c` field where not 0.
    count_<counter> : In(step_bits), added in every cycle.
    interrupt : Out(1), some bit of `interrupt_status` is set and enabled; only if the map has the two registers.

    Raises
    ------
    ValueError
        `counter_bits` out of range, or `fixed` names a field that cannot be, or a value that does not fit.
    """

    def __init__(
        self, table: RegisterMap, fixed: Mapping[tuple[str, str], int] | None = None, counter_bits: int = 64
    ) -> None:
        if not 1 <= counter_bits <= 2 * WORD_BITS:
            raise ValueError(f"counter_bits must be from 1 to {2 * WORD_BITS}, got {counter_bits}")
        self.table = table
        self.fixed = dict(fixed or {})
        self.counter_bits = counter_bits
        for (register, name), value in self.fixed.items():
            field = table.register(register).field(name)
            if field.access not in (Access.READ_ONLY, Access.READ_WRITE) or not 0 <= value < 1 << field.bits:
                raise ValueError(f"{register}.{name} is {field.access} of {field.bits} bits, it cannot be {value}")
        members = slave_members(table.address_bits)
        for register in table.registers:
            for field in register.fields:
                port = f"{register.name}_{field.name}"
                if field.access is not Access.READ_ONLY:
                    members[port] = Out(field.bits, init=self._reset(register, field))
                elif (register.name, field.name) not in self.fixed:
                    members[port] = In(field.bits)
                if field.access is Access.WRITE_ONE_TO_CLEAR:
                    members[f"{port}_event"] = In(field.bits)
        for counter in table.counters:
            members[f"count_{counter.name}"] = In(counter.step_bits)
        names = {register.name for register in table.registers}
        self._interrupts = {"interrupt_enable", "interrupt_status"} <= names
        if self._interrupts:
            members["interrupt"] = Out(1)
        super().__init__(members)

    def _reset(self, register: Register, field: Field) -> int:
        return self.fixed.get((register.name, field.name), field.reset)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Masters may see `ready` from the cycle after reset on, never during it.
        running = Signal()
        m.d.sync += running.eq(1)
        word, data, mask = Signal(self.table.address_bits - 2), Signal(WORD_BITS), Signal(WORD_BITS)
        writes = self._write_channel(m, running, word, data, mask)
        values: dict[int, Value] = {}
        for register in self.table.registers:
            value: Value = Const(0, WORD_BITS)
            hit = Signal(name=f"writes_{register.name}")
            m.d.comb += hit.eq(writes & (word == register.offset // WORD_BYTES))
            for field in register.fields:
                bits = slice(field.lowest_bit, field.lowest_bit + field.bits)
                stored = self._field(m, register, field, hit, data[bits], mask[bits])
                value = value | (stored << field.lowest_bit)
            values[register.offset // WORD_BYTES] = value
        self._counters(m, values)
        self._read_channel(m, running, values)
        if self._interrupts:
            causes = (
                getattr(self, f"interrupt_enable_{field.name}") & getattr(self, f"interrupt_status_{field.name}")
                for field in self.table.register("interrupt_status").fields
            )
            m.d.comb += self.interrupt.eq(Cat(*causes).any())
        return m

    def _mapped(self, word: Value) -> Value:
        return word.matches(*(register.offset // WORD_BYTES for register in self.table.all_registers()))

    def _write_channel(self, m: Module, running: Signal, word: Signal, data: Signal, mask: Signal) -> Signal:
        """Strobe of a write of the bits `mask` of `data` to `word`."""
        writes, has_address, has_data = Signal(), Signal(), Signal()
        m.d.comb += [
            self.s_axil_awready.eq(running & ~has_address),
            self.s_axil_wready.eq(running & ~has_data),
            writes.eq(has_address & has_data & ~self.s_axil_bvalid),
        ]
        with m.If(self.s_axil_awvalid & self.s_axil_awready):
            m.d.sync += [has_address.eq(1), word.eq(self.s_axil_awaddr[2:])]
        with m.If(self.s_axil_wvalid & self.s_axil_wready):
            m.d.sync += [has_data.eq(1), data.eq(self.s_axil_wdata)]
            m.d.sync += mask.eq(Cat(strobe.replicate(8) for strobe in self.s_axil_wstrb))
        with m.If(writes):
            m.d.sync += [
                has_address.eq(0),
                has_data.eq(0),
                self.s_axil_bvalid.eq(1),
                self.s_axil_bresp.eq(Mux(self._mapped(word), OKAY, SLAVE_ERROR)),
            ]
        with m.Elif(self.s_axil_bready):
            m.d.sync += self.s_axil_bvalid.eq(0)
        return writes

    def _field(self, m: Module, register: Register, field: Field, hit: Signal, data: Value, mask: Value) -> Value:
        """What a read of the field returns."""
        port = f"{register.name}_{field.name}"
        match field.access:
            case Access.READ_ONLY:
                value = self.fixed.get((register.name, field.name))
                return getattr(self, port) if value is None else Const(value, field.bits)
            case Access.READ_WRITE:
                stored = getattr(self, port)
                with m.If(hit):
                    m.d.sync += stored.eq((stored & ~mask) | (data & mask))
                return stored
            case Access.WRITE_ONE_TO_CLEAR:
                stored = getattr(self, port)
                kept = Signal(field.bits, name=f"{port}_kept")
                m.d.comb += kept.eq(Mux(hit & (data & mask).any(), 0, stored))
                m.d.sync += stored.eq(Mux(kept.any(), kept, getattr(self, f"{port}_event")))
                return stored
            case Access.PULSE:
                m.d.sync += getattr(self, port).eq(Mux(hit, data & mask, 0))
                return Const(0, field.bits)

    def _counters(self, m: Module, values: dict[int, Value]) -> None:
        for counter in self.table.counters:
            count = Signal(self.counter_bits, name=f"{counter.name}_count")
            copy = Signal(self.counter_bits, name=f"{counter.name}_snapshot")
            m.d.sync += count.eq(Mux(self.control_clear, 0, count + getattr(self, f"count_{counter.name}")))
            with m.If(self.control_snapshot):
                m.d.sync += copy.eq(count)
            for place, register in enumerate(counter.registers):
                values[register.offset // WORD_BYTES] = copy[WORD_BITS * place : WORD_BITS * (place + 1)]

    def _read_channel(self, m: Module, running: Signal, values: Mapping[int, Value]) -> None:
        word, has_address = Signal(self.table.address_bits - 2), Signal()
        m.d.comb += self.s_axil_arready.eq(running & ~has_address)
        with m.If(self.s_axil_arvalid & self.s_axil_arready):
            m.d.sync += [has_address.eq(1), word.eq(self.s_axil_araddr[2:])]
        selected = Signal(WORD_BITS)
        with m.Switch(word):
            for place, value in values.items():
                with m.Case(place):
                    m.d.comb += selected.eq(value)
        with m.If(has_address & ~self.s_axil_rvalid):
            m.d.sync += [
                has_address.eq(0),
                self.s_axil_rvalid.eq(1),
                self.s_axil_rdata.eq(selected),
                self.s_axil_rresp.eq(Mux(self._mapped(word), OKAY, SLAVE_ERROR)),
            ]
        with m.Elif(self.s_axil_rready):
            m.d.sync += self.s_axil_rvalid.eq(0)
