"""The one FIFO: any depth, registered flags, the first word visible one cycle after its write."""

from __future__ import annotations

from enum import StrEnum

from amaranth import Cat, Module, Mux, Shape, Signal, Value
from amaranth.hdl import ShapeLike
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out


class Storage(StrEnum):
    """What holds the words."""

    REGISTERS = "registers"
    LUT_RAM = "lut_ram"
    BLOCK_RAM = "block_ram"


# Below these sizes the cheaper storage wins on every target family.
_REGISTER_DEPTH = 4
_LUT_RAM_DEPTH = 64


class Fifo(wiring.Component):
    """First in, first out.

    A beat written in cycle c can leave in cycle c + 1. `i.ready` is low exactly while `depth` beats are inside (a read
    frees its slot for the next cycle), so two slots give full throughput: `Fifo(shape, 2)` is the skid buffer.

    Parameters
    ----------
    payload_shape : shape of a beat.
    depth : slots, at least 1; any number, not only powers of two.
    storage : registers, LUT RAM (asynchronous read) or block RAM (synchronous read); by default chosen from the depth.
    front : keep the first word of a memory in a register as well, so that what is decided from it does not wait for the
        memory; only LUT RAM can do without. Registers always have it.
    observed : add the ports `observe_index` and `observe_payload`, which read the n-th waiting beat; for proofs only.

    Members
    -------
    i : In(stream.Signature(payload_shape))
    o : Out(stream.Signature(payload_shape))
    level : Out(range(depth + 1)), beats inside.

    Attributes
    ----------
    head, after_head, tail : addresses of the first and the second word and of the next write in a memory; for proofs.

    Raises
    ------
    ValueError
        `depth` under 1, or block RAM without its first word in a register.
    """

    def __init__(
        self,
        payload_shape: ShapeLike,
        depth: int,
        storage: Storage | None = None,
        *,
        front: bool = True,
        observed: bool = False,
    ) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        if not front and storage is not Storage.LUT_RAM:
            raise ValueError(f"only LUT RAM can do without the first word in a register, got {storage}")
        if storage is None:
            storage = (
                Storage.REGISTERS
                if depth <= _REGISTER_DEPTH
                else Storage.LUT_RAM
                if depth <= _LUT_RAM_DEPTH
                else Storage.BLOCK_RAM
            )
        self.depth = depth
        self.storage = Storage(storage)
        self.front = front
        self.observed = observed
        self._payload_shape = payload_shape
        self.head = Signal(range(depth))
        self.after_head = Signal(range(depth), init=1 % depth)
        self.tail = Signal(range(depth))
        members = {
            "i": In(stream.Signature(payload_shape)),
            "o": Out(stream.Signature(payload_shape)),
            "level": Out(range(depth + 1)),
        }
        if observed:
            members["observe_index"] = In(range(depth))
            members["observe_payload"] = Out(payload_shape)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        write = Signal()
        read = Signal()
        m.d.comb += [
            self.i.ready.eq(self.level != self.depth),
            self.o.valid.eq(self.level != 0),
            write.eq(self.i.valid & self.i.ready),
            read.eq(self.o.valid & self.o.ready),
        ]
        m.d.sync += self.level.eq(self.level + write - read)
        if self.storage is Storage.REGISTERS:
            self._shift_registers(m, read)
        else:
            self._circular_memory(m, write, read)
        return m

    def _shift_registers(self, m: Module, read: Signal) -> None:
        slots = [Signal(self._payload_shape, name=f"slot_{n}") for n in range(self.depth)]
        target = Signal(range(self.depth + 1))
        m.d.comb += [target.eq(self.level - read), self.o.payload.eq(slots[0])]
        # The first free slot takes what is offered whether it is valid or not: only the level waits for that.
        for n, slot in enumerate(slots):
            with m.If(target == n):
                m.d.sync += slot.eq(self.i.payload)
            if n + 1 < self.depth:
                with m.Elif(read):
                    m.d.sync += slot.eq(slots[n + 1])
        if self.observed:
            with m.Switch(self.observe_index):
                for n, slot in enumerate(slots):
                    with m.Case(n):
                        m.d.comb += self.observe_payload.eq(slot)

    def _circular_memory(self, m: Module, write: Signal, read: Signal) -> None:
        width = Shape.cast(self._payload_shape).width
        m.submodules.words = words = memory.Memory(shape=width, depth=self.depth, init=[])
        head, tail = self.head, self.tail
        after_head = self.after_head
        after_tail = Signal(range(self.depth))
        beyond = Signal(range(self.depth))
        m.d.comb += [
            after_tail.eq(_following(tail, self.depth)),
            beyond.eq(_following(after_head, self.depth)),
        ]
        with m.If(read):
            m.d.sync += [head.eq(after_head), after_head.eq(beyond)]
        with m.If(write):
            m.d.sync += tail.eq(after_tail)
        incoming = Cat(self.i.payload)
        outgoing = Cat(self.o.payload)
        writer = words.write_port()
        m.d.comb += [writer.addr.eq(tail), writer.data.eq(incoming), writer.en.eq(write)]
        first, second = Signal(width), Signal(width)
        if not self.front:
            reader = words.read_port(domain="comb")
            m.d.comb += [reader.addr.eq(head), outgoing.eq(reader.data)]
        else:
            if self.storage is Storage.LUT_RAM:
                reader = words.read_port(domain="comb")
                m.d.comb += [reader.addr.eq(after_head), second.eq(reader.data)]
            else:
                # The word written into the slot that is read at the same edge goes round the memory, whose read port is
                # off meanwhile: what block RAM returns for such a read is not portable between vendors' tools.
                reader = words.read_port()
                collides = Signal()
                bypassed = Signal()
                bypass = Signal(width)
                m.d.comb += [
                    reader.addr.eq(Mux(read, beyond, after_head)),
                    collides.eq(write & (tail == reader.addr)),
                    reader.en.eq(~collides),
                    second.eq(Mux(bypassed, bypass, reader.data)),
                ]
                m.d.sync += [bypassed.eq(collides), bypass.eq(incoming)]
            m.d.comb += outgoing.eq(first)
            with m.If(read & (self.level != 1)):
                m.d.sync += first.eq(second)
            with m.Elif(read | (self.level == 0)):
                m.d.sync += first.eq(incoming)
        if self.observed:
            observer = words.read_port(domain="comb")
            place = Signal(range(2 * self.depth))
            held: Value = observer.data
            if self.front:
                held = Mux(self.observe_index == 0, first, Mux(self.observe_index == 1, second, held))
            m.d.comb += [
                place.eq(head + self.observe_index),
                observer.addr.eq(Mux(place >= self.depth, place - self.depth, place)),
                Cat(self.observe_payload).eq(held),
            ]


def _following(place: Signal, depth: int) -> Value:
    """The slot after `place`, round the end."""
    return Mux(place == depth - 1, 0, place + 1)
