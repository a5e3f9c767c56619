"""The top-k engine behind AXI4-Stream ports, for use outside this project."""

from __future__ import annotations

from amaranth import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.stream import Fifo
from topsieve_rtl.topk.engine import TopKEngine
from topsieve_rtl.topk.networks import sum_tree


def whole_bytes(bits: int) -> int:
    """Bytes that hold `bits` bits."""
    return -(-bits // 8)


class AxiStreamTopK(wiring.Component):
    """`TopKEngine` with byte-aligned lanes and the port names that FPGA tools infer as AXI4-Stream.

    Scores arrive with lane 0 in the lowest bytes, each in whole bytes; a lane counts if its lowest `tkeep` bit is set,
    and kept lanes come first. Survivors leave as score, then index, each in whole bytes. A packet without survivors is
    one beat without kept bytes.

    Parameters
    ----------
    engine : the engine behind the ports.

    Members
    -------
    s_axis_tdata, s_axis_tkeep, s_axis_tlast, s_axis_tvalid, s_axis_tready : scores.
    s_axis_tuser : In, k, how many to keep; read with `tlast`.
    m_axis_tdata, m_axis_tkeep, m_axis_tlast, m_axis_tvalid, m_axis_tready : survivors.
    m_axis_tuser : Out, status of the packet with `tlast` (see `PacketStatus`), else 0.

    Attributes
    ----------
    score_bytes, index_bytes : bytes of a score and of an index.
    """

    def __init__(self, engine: TopKEngine) -> None:
        self.engine = engine
        load = engine.i.payload.shape()
        survivors = engine.o.payload.shape()
        element = survivors["lanes"].shape.elem_shape
        self.score_bytes = whole_bytes(element["score"].width)
        self.index_bytes = whole_bytes(element["index"].width)
        in_bytes = engine.load_lanes * self.score_bytes
        out_bytes = engine.selector.lanes * (self.score_bytes + self.index_bytes)
        super().__init__(
            {
                "s_axis_tdata": In(8 * in_bytes),
                "s_axis_tkeep": In(in_bytes),
                "s_axis_tuser": In(load["k"].shape),
                "s_axis_tlast": In(1),
                "s_axis_tvalid": In(1),
                "s_axis_tready": Out(1),
                "m_axis_tdata": Out(8 * out_bytes),
                "m_axis_tkeep": Out(out_bytes),
                "m_axis_tuser": Out(survivors["status"].width),
                "m_axis_tlast": Out(1),
                "m_axis_tvalid": Out(1),
                "m_axis_tready": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.engine = engine = self.engine
        # Registers the lane count before it meets the loader's adders.
        m.submodules.slice = register_slice = Fifo(engine.i.payload.shape(), 2)
        wiring.connect(m, register_slice.o, engine.i)

        beat = register_slice.i.payload
        for lane in range(engine.load_lanes):
            m.d.comb += beat.lanes[lane].eq(self.s_axis_tdata[8 * self.score_bytes * lane :])
        m.d.comb += [
            beat.count.eq(sum_tree(list(self.s_axis_tkeep[:: self.score_bytes]))),
            beat.last.eq(self.s_axis_tlast),
            beat.k.eq(self.s_axis_tuser),
            register_slice.i.valid.eq(self.s_axis_tvalid),
            self.s_axis_tready.eq(register_slice.i.ready),
        ]

        out = engine.o.payload
        element_bytes = self.score_bytes + self.index_bytes
        for lane in range(engine.selector.lanes):
            base = 8 * element_bytes * lane
            score = self.m_axis_tdata[base : base + 8 * self.score_bytes]
            index = self.m_axis_tdata[base + 8 * self.score_bytes : base + 8 * element_bytes]
            m.d.comb += [score.eq(out.lanes[lane].score), index.eq(out.lanes[lane].index)]
        m.d.comb += [
            self.m_axis_tkeep.eq(
                Cat((out.count > lane).replicate(element_bytes) for lane in range(engine.selector.lanes))
            ),
            self.m_axis_tuser.eq(out.status),
            self.m_axis_tlast.eq(out.last),
            self.m_axis_tvalid.eq(engine.o.valid),
            engine.o.ready.eq(self.m_axis_tready),
        ]
        return m
