"""Index streams of the fetchers: the tokens of a command's rows."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.attention.layouts import SurvivorPosition
from topsieve_rtl.stream import Fifo
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.accelerator_latency import INDEX_COMMANDS


class IndexRequest(data.StructLayout):
    """Indices of a command: places 0 to `rows` - 1, or, `of_survivors`, those of a row's survivors."""

    def __init__(self, config: AcceleratorConfig) -> None:
        super().__init__({"rows": range(config.capacity + 1), "of_survivors": 1})


class FetchIndices(wiring.Component):
    """One index a cycle, command after command.

    Members
    -------
    i : In(stream.Signature(IndexRequest)), at least one row; `ready` is high while the fetcher takes commands.
    survivors : In(stream.Signature(SurvivorPosition))
    mapped : In(1), places go through the live list.
    position : Out, token : In, a place of the live list and what stands there, combinationally.
    o : Out(stream.Signature(range(capacity)))
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__(
            {
                "i": In(stream.Signature(IndexRequest(config))),
                "survivors": In(stream.Signature(SurvivorPosition(config))),
                "mapped": In(1),
                "position": Out(range(config.capacity)),
                "token": In(range(config.capacity)),
                "o": Out(stream.Signature(range(config.capacity))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.requests = requests = Fifo(IndexRequest(self.config), INDEX_COMMANDS)
        wiring.connect(m, wiring.flipped(self.i), requests.i)
        request, place = requests.o.payload, Signal(range(self.config.capacity + 1))
        taken, last = Signal(), Signal()
        m.d.comb += [
            self.o.valid.eq(requests.o.valid & (~request.of_survivors | self.survivors.valid)),
            self.position.eq(Mux(request.of_survivors, self.survivors.payload.position, place)),
            self.o.payload.eq(Mux(self.mapped, self.token, self.position)),
            taken.eq(self.o.valid & self.o.ready),
            last.eq(Mux(request.of_survivors, self.survivors.payload.last, place + 1 == request.rows)),
            self.survivors.ready.eq(requests.o.valid & request.of_survivors & self.o.ready),
            requests.o.ready.eq(taken & last),
        ]
        with m.If(taken):
            m.d.sync += place.eq(Mux(last, 0, place + 1))
        return m
