"""A ring of whole beats between two engines of the softmax, given and taken by the beat."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.stream import NEVER_READ_WHILE_WRITTEN


class RowBuffer(wiring.Component):
    """`depth` beats of `bits`; a reserved place is written later, in order, and freed when it is read or skipped.

    Members
    -------
    room : Out(1), a place can be reserved.
    reserve : In(1), take a place; only with `room`.
    write, word_in : In, the oldest reserved place that is not written yet.
    read : In(1), read the oldest beat and free it; it is on `word_out` in the next cycle. Written a cycle ago or more.
    skip : In, beats to free unread; only without `read`.

    Attributes
    ----------
    overflow : a place is reserved without room, written unreserved, or read or freed unwritten. For proofs.
    """

    def __init__(self, bits: int, depth: int) -> None:
        self.bits = bits
        self.depth = depth
        self.overflow = Signal()
        super().__init__(
            {
                "room": Out(1),
                "reserve": In(1),
                "write": In(1),
                "word_in": In(bits),
                "read": In(1),
                "skip": In(range(depth + 1)),
                "word_out": Out(bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.depth
        m.submodules.words = words = memory.Memory(
            shape=self.bits, depth=depth, init=[], attrs=NEVER_READ_WHILE_WRITTEN
        )
        used = Signal(range(depth + 1))
        head, tail = Signal(range(depth)), Signal(range(depth))
        freed, moved = Signal(range(depth + 1)), Signal(range(2 * depth))
        m.d.comb += [
            self.room.eq(used != depth),
            freed.eq(Mux(self.read, 1, self.skip)),
            moved.eq(head + freed),
        ]
        m.d.sync += [
            used.eq(used + self.reserve - freed),
            head.eq(Mux(moved >= depth, moved - depth, moved)),
        ]
        written = Signal(range(depth + 1))
        m.d.sync += written.eq(written + self.write - freed)
        m.d.comb += self.overflow.eq(
            (self.reserve & ~self.room) | (self.write & (written == used) & ~self.reserve) | (freed > written)
        )
        writer, reader = words.write_port(), words.read_port()
        with m.If(self.write):
            m.d.sync += tail.eq(Mux(tail == depth - 1, 0, tail + 1))
        m.d.comb += [
            writer.addr.eq(tail),
            writer.data.eq(self.word_in),
            writer.en.eq(self.write),
            reader.addr.eq(head),
            reader.en.eq(self.read),
            self.word_out.eq(reader.data),
        ]
        return m
