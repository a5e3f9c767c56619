"""Proof designs: a unit between a free source and a free sink, with the properties of its streams."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.asserts import AnySeq
from amaranth.hdl import Assert, Cover, Elaboratable

from topsieve_rtl.formal import OrderCheck, assert_stream, assume_stream, never_starves
from topsieve_rtl.stream import CreditPipeline, Fifo, Storage


class FifoProof(Elaboratable):
    """Order, occupancy, handshake and liveness of a FIFO, with the invariant that makes the induction close."""

    def __init__(self, fifo: Fifo) -> None:
        self.fifo = fifo

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fifo = fifo = self.fifo
        assume_stream(m, fifo.i, "input")
        m.d.comb += fifo.o.ready.eq(AnySeq(1))
        assert_stream(m, fifo.o, "output")
        order = OrderCheck(m, fifo.i, fifo.o, fifo.depth)
        m.d.comb += [
            Assert(order.inside == fifo.level),
            Assert(fifo.level <= fifo.depth),
            Assert(fifo.o.valid == (fifo.level != 0)),
            fifo.observe_index.eq(order.ahead),
        ]
        if fifo.storage is not Storage.REGISTERS:
            # Where the next write goes, as far behind the next read as there are beats inside.
            end, second = fifo.head + fifo.level, fifo.head + 1
            m.d.comb += [
                Assert(fifo.head < fifo.depth),
                Assert(fifo.after_head == Mux(second >= fifo.depth, second - fifo.depth, second)),
                Assert(fifo.tail == Mux(end >= fifo.depth, end - fifo.depth, end)),
            ]
        with m.If(order.tracking):
            m.d.comb += Assert(fifo.observe_payload == order.picked)
        never_starves(m, (fifo.level != 0) & fifo.o.ready, fifo.o.valid, 0, "output")
        m.d.comb += [Cover(fifo.level == fifo.depth), Cover(order.tracking & (order.ahead == fifo.depth - 1))]
        return m


class PipelineProof(Elaboratable):
    """The credit pipeline: its FIFO cannot overflow, order and function hold, nothing waits for ever."""

    def __init__(self, pipeline: CreditPipeline, matches) -> None:
        self.pipeline = pipeline
        self.matches = matches

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.pipeline = unit = self.pipeline
        assume_stream(m, unit.i, "input")
        m.d.comb += unit.o.ready.eq(AnySeq(1))
        assert_stream(m, unit.o, "output")
        order = OrderCheck(m, unit.i, unit.o, unit.depth, self.matches)
        never_starves(m, order.inside != 0, unit.o.valid, unit.latency_cycles, "output")
        never_starves(m, order.inside == 0, unit.i.ready, unit.interval, "input")
        full = Signal()
        m.d.comb += [full.eq(order.inside == unit.depth), Cover(full & unit.o.valid)]
        return m


class CreditProof(Elaboratable):
    """The credit invariant alone, for ever: credits used = beats in flight + beats in the FIFO."""

    def __init__(self, pipeline: CreditPipeline) -> None:
        self.pipeline = pipeline

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.pipeline = unit = self.pipeline
        assume_stream(m, unit.i, "input")
        m.d.comb += unit.o.ready.eq(AnySeq(1))
        in_flight = sum((unit.in_flight[stage] for stage in range(len(unit.in_flight))), start=0)
        m.d.comb += [
            Assert(unit.credits_used == in_flight + unit.waiting),
            Assert(unit.credits_used <= unit.depth),
        ]
        with m.If(unit.finished):
            m.d.comb += Assert(unit.waiting < unit.depth)
        assert_stream(m, unit.o, "output")
        return m
