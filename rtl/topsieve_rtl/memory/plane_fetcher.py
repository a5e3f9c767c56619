"""The plane fetcher: rows of live tokens from memory, as beats of elements."""

from __future__ import annotations

from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.memory.axi import ReadAddress, ReadData, connect_read_port, read_port_members
from topsieve_rtl.memory.bursts import BurstSplitter
from topsieve_rtl.memory.rows import FetchCommand, RowWalker
from topsieve_rtl.memory.unpack import FetchBeat, Unpacker, WordAligner
from topsieve_sim.golden.plane_fetch import PlaneFetchShape


class PlaneFetcher(wiring.Component):
    """Gathers rows of bit planes; `docs/plane-fetcher.md`.

    Equal to `topsieve_sim.stepped.plane_fetch.PlaneFetcher` to the cycle; `AxiPlaneFetcher` gives its memory side the
    usual names.

    Members
    -------
    command : In(stream.Signature(FetchCommand))
    index : In(stream.Signature(range(max_rows)))
    address : Out(stream.Signature(ReadAddress)), AR.
    data : In(stream.Signature(ReadData)), R; `ready` is always high.
    o : Out(stream.Signature(FetchBeat))

    Attributes
    ----------
    walker, splitter, aligner, unpacker : the four parts, for proofs.
    """

    def __init__(self, shape: PlaneFetchShape) -> None:
        self.shape = shape
        self.walker = RowWalker(shape)
        self.splitter = BurstSplitter(shape)
        self.aligner = WordAligner(shape)
        self.unpacker = Unpacker(shape)
        super().__init__(
            {
                "command": In(stream.Signature(FetchCommand(shape))),
                "index": In(stream.Signature(range(shape.max_rows))),
                "address": Out(stream.Signature(ReadAddress(shape.address_bits))),
                "data": In(stream.Signature(ReadData(shape.data_bits))),
                "o": Out(stream.Signature(FetchBeat(shape))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker = walker = self.walker
        m.submodules.splitter = splitter = self.splitter
        m.submodules.aligner = aligner = self.aligner
        m.submodules.unpacker = unpacker = self.unpacker
        wiring.connect(m, wiring.flipped(self.command), walker.command)
        wiring.connect(m, wiring.flipped(self.index), walker.index)
        wiring.connect(m, walker.run, splitter.run)
        wiring.connect(m, splitter.address, wiring.flipped(self.address))
        wiring.connect(m, splitter.expected, aligner.expected)
        wiring.connect(m, wiring.flipped(self.data), aligner.word)
        wiring.connect(m, walker.job, unpacker.job)
        wiring.connect(m, aligner.piece, unpacker.piece)
        wiring.connect(m, aligner.status, unpacker.status)
        wiring.connect(m, unpacker.o, wiring.flipped(self.o))
        m.d.comb += [
            splitter.word_freed.eq(aligner.word_freed),
            splitter.burst_answered.eq(aligner.burst_answered),
        ]
        return m


class AxiPlaneFetcher(wiring.Component):
    """The plane fetcher with AXI4 wires.

    Members
    -------
    command, index, o : as in `PlaneFetcher`.
    m_axi_ar*, m_axi_r* : `topsieve_rtl.memory.read_port_members`.
    """

    def __init__(self, shape: PlaneFetchShape) -> None:
        self.shape = shape
        super().__init__(
            {
                "command": In(stream.Signature(FetchCommand(shape))),
                "index": In(stream.Signature(range(shape.max_rows))),
                "o": Out(stream.Signature(FetchBeat(shape))),
                **read_port_members(shape.data_bits, shape.address_bits, shape.id_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.fetcher = fetcher = PlaneFetcher(self.shape)
        wiring.connect(m, wiring.flipped(self.command), fetcher.command)
        wiring.connect(m, wiring.flipped(self.index), fetcher.index)
        wiring.connect(m, fetcher.o, wiring.flipped(self.o))
        connect_read_port(m, self, fetcher.address, fetcher.data)
        return m
