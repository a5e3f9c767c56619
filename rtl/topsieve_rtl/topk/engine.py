"""The top-k engine: loader, row buffers, selector, filter."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.topk.bitonic import BitonicSelect
from topsieve_rtl.topk.filter import Filter, Survivors
from topsieve_rtl.topk.loader import LoadBeat, Loader
from topsieve_rtl.topk.quick import QuickSelect
from topsieve_rtl.topk.radix import RadixSelect
from topsieve_rtl.topk.selector import Selector
from topsieve_sim.arch import AcceleratorConfig, SelectorKind


def make_selector(
    kind: SelectorKind, lanes: int, score_bits: int, capacity: int, seed: int = 0xACE1, radix_bits: int = 4
) -> Selector:
    """The selector of that kind."""
    if kind is SelectorKind.QUICK:
        return QuickSelect(lanes, score_bits, capacity, seed)
    if kind is SelectorKind.RADIX:
        return RadixSelect(lanes, score_bits, capacity, radix_bits)
    return BitonicSelect(lanes, score_bits, capacity)


class TopKEngine(wiring.Component):
    """Keeps the `k` largest scores of each packet: lowest index wins ties, survivors leave in ascending index order.

    `topsieve_sim.timing.topk` gives the cycle of every beat, `topsieve_sim.stepped.topk.TopKEngine` the same clock by
    clock. A refused packet (see `PacketStatus`) leaves as one empty beat with its status.

    Parameters
    ----------
    selector : how the threshold is found; also gives lanes, score bits and capacity.
    load_lanes : lanes of a load beat, a divisor of the selector's lanes; by default all.
    banks : row buffers, 1 or 2; with 2 a packet is loaded while the one before is selected and filtered.

    Members
    -------
    i : In(stream.Signature(LoadBeat)), all beats but a packet's last are full; `k` is read with the last.
    o : Out(stream.Signature(Survivors))

    Attributes
    ----------
    works : a packet is selected or filtered in this cycle; for counters.

    Raises
    ------
    ValueError
        a parameter out of range.
    """

    def __init__(self, selector: Selector, load_lanes: int | None = None, banks: int = 2) -> None:
        lanes = selector.lanes
        load_lanes = lanes if load_lanes is None else load_lanes
        if not 1 <= load_lanes <= lanes or lanes % load_lanes:
            raise ValueError(f"load_lanes must divide lanes = {lanes}, got {load_lanes}")
        if banks not in (1, 2):
            raise ValueError(f"banks must be 1 or 2, got {banks}")
        self.selector = selector
        self.load_lanes = load_lanes
        self.banks = banks
        self.works = Signal()
        super().__init__(
            {
                "i": In(stream.Signature(LoadBeat(selector.score_bits, selector.capacity, load_lanes))),
                "o": Out(stream.Signature(Survivors(selector.score_bits, selector.capacity, lanes))),
            }
        )

    @classmethod
    def of(cls, config: AcceleratorConfig, score_bits: int | None = None) -> TopKEngine:
        """The engine of a configuration: for probabilities, or for scores of `score_bits` (token and head importance).

        Raises
        ------
        ValueError
            a parallelism that is no power of two.
        """
        topk = config.topk
        bits = config.formats.probability_bits if score_bits is None else score_bits
        selector = make_selector(topk.selector, topk.parallelism, bits, config.capacity, topk.seed, topk.radix_bits)
        return cls(selector, banks=2 if config.double_buffer else 1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.selector = selector = self.selector
        lanes, bits, capacity = selector.lanes, selector.score_bits, selector.capacity
        m.submodules.loader = loader = Loader(lanes, bits, capacity, self.load_lanes, self.banks)
        m.submodules.filter = survivors = Filter(lanes, bits, capacity)
        wiring.connect(m, wiring.flipped(self.i), loader.i)
        wiring.connect(m, survivors.o, wiring.flipped(self.o))

        # Which bank each of the three works on, and the packet that is being selected.
        selecting_bank, filter_bank, filtering = Signal(), Signal(), Signal()
        selecting = Signal(loader.packet.payload.shape())
        starts = loader.packet.valid & selector.command.ready
        moves = selector.result.valid & survivors.job.ready
        job = survivors.job.payload
        m.d.comb += [
            selector.command.valid.eq(loader.packet.valid),
            selector.command.payload.n.eq(loader.packet.payload.n),
            selector.command.payload.k.eq(loader.packet.payload.k),
            loader.packet.ready.eq(selector.command.ready),
            survivors.job.valid.eq(selector.result.valid),
            selector.result.ready.eq(survivors.job.ready),
            job.threshold.eq(selector.result.payload),
            job.n.eq(selecting.n),
            job.status.eq(selecting.status),
            selector.loading.eq(loader.row_valid),
            selector.loading_first.eq(loader.row_first),
            selector.loaded.eq(loader.row),
            selector.loaded_valid.eq(loader.row_live),
        ]
        with m.If(starts):
            m.d.sync += [selecting.eq(loader.packet.payload), selecting_bank.eq(loader.packet.payload.bank)]
        with m.If(moves):
            m.d.sync += [filter_bank.eq(selecting_bank), filtering.eq(1)]
        with m.Elif(survivors.finishes):
            m.d.sync += filtering.eq(0)

        # Packets from the selector's command to the filter's last row: one in each of the two at most.
        begun = Signal(range(3))
        m.d.comb += self.works.eq(starts | (begun != 0))
        m.d.sync += begun.eq(begun + starts - survivors.finishes)

        answers = []
        for bank in range(self.banks):
            buffer = memory.Memory(shape=bits * lanes, depth=selector.rows, init=[])
            m.submodules[f"buffer_{bank}"] = buffer
            writer, reader = buffer.write_port(), buffer.read_port()
            owned = filtering & (filter_bank == bank)
            m.d.comb += [
                writer.addr.eq(loader.row_address),
                writer.data.eq(loader.row.as_value()),
                writer.en.eq(loader.row_write & (loader.row_bank == bank)),
                reader.en.eq(Mux(owned, survivors.read, selector.read)),
                reader.addr.eq(Mux(owned, survivors.address, selector.address)),
                loader.free[bank].eq(survivors.finishes & (filter_bank == bank)),
            ]
            answers.append(reader.data)
        m.d.comb += [
            selector.row.as_value().eq(Mux(selecting_bank, answers[-1], answers[0])),
            survivors.row.as_value().eq(Mux(filter_bank, answers[-1], answers[0])),
        ]
        return m
