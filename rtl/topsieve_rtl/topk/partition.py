"""One side of quick-select: zero eliminator, packer and a circular row memory."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.topk.networks import delayed
from topsieve_rtl.topk.packer import Packer
from topsieve_rtl.topk.zero_eliminator import Compactor


class Partition(wiring.Component):
    """Writes the masked lanes of a round's rows as full rows; the next round may read them while the tail is written.

    Rows of a round follow those of the round before in a circular memory: a round reads its rows before it overwrites
    them, because it writes at most as many elements as it has read.

    Members
    -------
    start, first, last : In(1), a row is on `row`; it opens or closes a round.
    row : In(ArrayLayout(score_bits, lanes))
    mask : In(lanes), the lanes that belong to this side.
    parity : Out(1), toggles when a round's first row reaches the packer.
    base : Out, address of that round's first row.
    rows_written : Out, rows of that round in the memory.
    read : In(1), read the row at `address`; it is on `answer` in the next cycle.
    """

    def __init__(self, score_bits: int, lanes: int, depth: int) -> None:
        self.score_bits = score_bits
        self.lanes = lanes
        # A power of two, so that the circular addresses wrap by themselves.
        self.depth = max(2, 1 << (depth - 1).bit_length())
        row = data.ArrayLayout(score_bits, lanes)
        super().__init__(
            {
                "start": In(1),
                "first": In(1),
                "last": In(1),
                "row": In(row),
                "mask": In(lanes),
                "parity": Out(1),
                "base": Out(range(self.depth)),
                "rows_written": Out(range(self.depth + 1)),
                "read": In(1),
                "address": In(range(self.depth)),
                "answer": Out(row),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.compactor = compactor = Compactor(self.score_bits, self.lanes)
        m.submodules.packer = packer = Packer(self.score_bits, self.lanes, writes_empty=False)
        m.submodules.rows = rows = memory.Memory(shape=self.score_bits * self.lanes, depth=self.depth, init=[])
        m.d.comb += [
            compactor.start.eq(self.start),
            compactor.i.lanes.eq(self.row),
            compactor.i.valid.eq(self.mask),
            compactor.i.last.eq(self.last),
            packer.start.eq(delayed(m, self.start, compactor.stages, "start")),
            packer.first.eq(delayed(m, self.first & self.start, compactor.stages, "first")),
            packer.i.eq(compactor.o),
        ]
        tail = Signal(range(self.depth))
        writer = rows.write_port()
        m.d.comb += [
            writer.addr.eq(tail),
            writer.data.eq(packer.row.lanes.as_value()),
            writer.en.eq(packer.write),
        ]
        with m.If(packer.write):
            m.d.sync += tail.eq(tail + 1)
        with m.If(packer.opens):
            m.d.sync += [self.parity.eq(~self.parity), self.base.eq(tail), self.rows_written.eq(packer.write)]
        with m.Else():
            m.d.sync += self.rows_written.eq(self.rows_written + packer.write)
        reader = rows.read_port()
        m.d.comb += [
            reader.addr.eq(self.address),
            reader.en.eq(self.read),
            self.answer.as_value().eq(reader.data),
        ]
        return m
