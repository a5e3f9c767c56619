"""A queue of strobes: what comes can leave in the same cycle."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.hdl import ShapeLike
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.stream import Fifo


class FallThrough(wiring.Component):
    """First in, first out, without a cycle of delay where nothing waits.

    Parameters
    ----------
    payload_shape : shape of an entry.
    depth : entries that can wait; the caller never has more.

    Members
    -------
    strobe : In(1), `payload` : In, an entry comes.
    o : Out(stream.Signature(payload_shape)); `valid` and `payload` follow the strobe within the cycle.

    Attributes
    ----------
    overflow : an entry comes while `depth` of them wait; for proofs.
    """

    def __init__(self, payload_shape: ShapeLike, depth: int) -> None:
        self.fifo = Fifo(payload_shape, depth)
        self.overflow = Signal()
        super().__init__({"strobe": In(1), "payload": In(payload_shape), "o": Out(stream.Signature(payload_shape))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fifo = fifo = self.fifo
        m.d.comb += [
            self.o.valid.eq(fifo.o.valid | self.strobe),
            self.o.payload.eq(Mux(fifo.o.valid, fifo.o.payload, self.payload)),
            fifo.o.ready.eq(self.o.ready),
            fifo.i.valid.eq(self.strobe & (fifo.o.valid | ~self.o.ready)),
            fifo.i.payload.eq(self.payload),
            self.overflow.eq(fifo.i.valid & ~fifo.i.ready),
        ]
        return m
