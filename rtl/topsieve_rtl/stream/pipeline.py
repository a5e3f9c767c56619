"""The credit pipeline: a datapath that never stalls, behind a credit counter and in front of an output FIFO."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.hdl import ShapeLike
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.stream.fifo import Fifo, Storage


class Datapath(wiring.Component):
    """Base of the datapaths: `o` is a function of the `i` seen `stages` cycles earlier, whatever else happens.

    A subclass calls `super().__init__` with its shapes and registers and writes `elaborate`.

    Parameters
    ----------
    input_shape, output_shape : shapes of the ports.
    stages : registers between `i` and `o`; 0 for a combinational function.

    Members
    -------
    start : In(1), a beat is on `i` in this cycle (multi-cycle datapaths begin; others may ignore it).
    i : In(input_shape), meaningful while `start`.
    o : Out(output_shape), sampled `stages` cycles after `start`.
    """

    def __init__(self, input_shape: ShapeLike, output_shape: ShapeLike, stages: int) -> None:
        if stages < 0:
            raise ValueError(f"stages must be at least 0, got {stages}")
        self.input_shape = input_shape
        self.output_shape = output_shape
        self.stages = stages
        super().__init__({"start": In(1), "i": In(input_shape), "o": Out(output_shape)})


class CreditPipeline(wiring.Component):
    """A `Datapath` as a stream unit; equal to `topsieve_sim.stepped.pipeline.CreditPipeline` to the cycle.

    The law of its beat times is in `topsieve_sim.timing.pipeline`, with latency = `datapath.stages` + 1 (the last cycle
    is the write into the FIFO). Full throughput at interval 1 takes depth >= latency + 1.

    Parameters
    ----------
    datapath : the function.
    depth : output FIFO slots, which are the credits; at least 1.
    interval : cycles between admissions, at least 1.
    storage : of the FIFO.

    Members
    -------
    i : In(stream.Signature(datapath.input_shape))
    o : Out(stream.Signature(datapath.output_shape))

    Attributes
    ----------
    credits_used, in_flight, finished, waiting : state for proofs and counters: credits taken, one bit per stage that
        holds a beat, a beat is written into the FIFO, beats in the FIFO.
    """

    def __init__(self, datapath: Datapath, depth: int, interval: int = 1, storage: Storage | None = None) -> None:
        if depth < 1 or interval < 1:
            raise ValueError(f"depth and interval must be at least 1, got {depth} and {interval}")
        self.datapath = datapath
        self.depth = depth
        self.interval = interval
        self.storage = storage
        self.credits_used = Signal(range(depth + 1))
        self.in_flight = Signal(datapath.stages)
        self.finished = Signal()
        self.waiting = Signal(range(depth + 1))
        super().__init__(
            {
                "i": In(stream.Signature(datapath.input_shape)),
                "o": Out(stream.Signature(datapath.output_shape)),
            }
        )

    @property
    def latency_cycles(self) -> int:
        """Cycles from the input handshake to the first possible output handshake."""
        return self.datapath.stages + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.datapath = datapath = self.datapath
        m.submodules.fifo = fifo = Fifo(self.datapath.output_shape, self.depth, self.storage)

        admitted = Signal()
        left = Signal()
        m.d.comb += [
            admitted.eq(self.i.valid & self.i.ready),
            left.eq(fifo.o.valid & self.o.ready),
            datapath.start.eq(admitted),
            datapath.i.eq(self.i.payload),
        ]

        m.d.sync += self.credits_used.eq(self.credits_used + admitted - left)
        free = self.credits_used != self.depth
        if self.interval > 1:
            busy = Signal(range(self.interval))
            m.d.sync += busy.eq(Mux(admitted, self.interval - 1, Mux(busy == 0, 0, busy - 1)))
            free = free & (busy == 0)
        m.d.comb += self.i.ready.eq(free)

        if self.datapath.stages:
            # Bit s: the beat admitted s + 1 cycles ago.
            m.d.sync += self.in_flight.eq((self.in_flight << 1) | admitted)
            m.d.comb += self.finished.eq(self.in_flight[-1])
        else:
            m.d.comb += self.finished.eq(admitted)
        # A credit is a FIFO slot, so `fifo.i.ready` is high whenever a beat arrives.
        m.d.comb += [
            fifo.i.valid.eq(self.finished),
            fifo.i.payload.eq(datapath.o),
            self.waiting.eq(fifo.level),
            self.o.valid.eq(fifo.o.valid),
            self.o.payload.eq(fifo.o.payload),
            fifo.o.ready.eq(self.o.ready),
        ]
        return m
