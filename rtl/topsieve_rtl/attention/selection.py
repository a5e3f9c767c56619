"""Local value selection: width adapter, admission gate, the top-k engine, survivor banks."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.attention.activity import Progress
from topsieve_rtl.attention.layouts import ROW_BITS, FinishedRow, ProbabilityBeat, SurvivorPosition
from topsieve_rtl.attention.survivors import SurvivorBanks, WholeRow
from topsieve_rtl.stream import Fifo
from topsieve_rtl.topk import TopKEngine, make_selector
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.attention_latency import attention_latencies
from topsieve_sim.golden.topk_latency import LOAD_TO_COMMAND


class ValueSelection(wiring.Component):
    """Keeps the `kept` largest probabilities of each row; equal to `topsieve_sim.stepped.selection` to the cycle.

    A row enters the engine with a survivor bank reserved for it, so the engine's output never stalls. Where a beat is wider
    than the engine, an adapter feeds it in parts. A row of `kept` keys or fewer passes whole.

    Parameters
    ----------
    config : lanes, top-k engine, capacity, formats, buffering.
    row_bits : width of the row number that is carried along.

    Members
    -------
    i : In(stream.Signature(ProbabilityBeat)), rows of 1 to `capacity` probabilities, all beats but a row's last full
    o : Out(stream.Signature(ProbabilityBeat)), towards the weighted sum
    positions : Out(stream.Signature(SurvivorPosition)), of gathered rows, ascending, from the cycle after `finished` on.
        A row's bank is free when its beats have left and its positions are read.
    kept : In, at least 1; changed only while nothing is inside.
    gather : In(1), survivors leave packed, `lanes` a beat; else they stand in their lanes and all beats of the row
        leave, 0 in the lanes of the others. Changed only while nothing is inside, at least two cycles before a beat.
    finished : Out(1), a row's survivors are all in their bank: its first beat can leave in the next cycle.
    finished_row : Out(FinishedRow), meaningful with `finished`

    Attributes
    ----------
    overflow : a queue inside is written while full or read while empty; never, because of the reserved banks. For
        proofs.
    progress : what the engine does, for counters; offered is what waits for a survivor bank alone.

    Raises
    ------
    ValueError
        `row_bits` under 1.
    """

    def __init__(self, config: AcceleratorConfig, row_bits: int = ROW_BITS) -> None:
        if row_bits < 1:
            raise ValueError(f"row_bits must be at least 1, got {row_bits}")
        self.config = config
        self.row_bits = row_bits
        self.overflow = Signal()
        self.progress = Signal(Progress())
        beat = ProbabilityBeat(config, row_bits)
        super().__init__(
            {
                "i": In(stream.Signature(beat)),
                "o": Out(stream.Signature(beat)),
                "positions": Out(stream.Signature(SurvivorPosition(config))),
                "kept": In(range(config.capacity + 1)),
                "gather": In(1),
                "finished": Out(1),
                "finished_row": Out(FinishedRow(config, row_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        cycles = attention_latencies(config)
        lanes, part_lanes = cycles.lanes, min(cycles.lanes, cycles.topk_lanes)
        topk, formats = config.topk, config.formats
        selector = make_selector(
            topk.selector, topk.parallelism, formats.probability_bits, config.capacity, topk.seed, topk.radix_bits
        )
        m.submodules.engine = engine = TopKEngine(selector, part_lanes, cycles.banks)
        m.submodules.banks = banks = SurvivorBanks(config, self.row_bits)
        gather = Signal()
        m.d.sync += gather.eq(self.gather)
        m.d.comb += banks.gather.eq(gather)
        wiring.connect(m, engine.o, banks.i)
        wiring.connect(m, banks.o, wiring.flipped(self.o))
        wiring.connect(m, banks.positions, wiring.flipped(self.positions))

        # The gate: a row's first part needs a bank.
        inside, banks_used = Signal(), Signal(range(cycles.survivor_banks + 1))
        is_open, enters = Signal(), Signal()
        part = engine.i.payload
        m.d.comb += [
            is_open.eq(inside | (banks_used != cycles.survivor_banks)),
            enters.eq(engine.i.valid & engine.i.ready),
            part.k.eq(self.kept),
        ]
        m.d.sync += banks_used.eq(banks_used + (enters & ~inside) - banks.freed)
        with m.If(enters):
            m.d.sync += inside.eq(~part.last)
        if part_lanes == lanes:
            m.d.comb += [
                self.i.ready.eq(engine.i.ready & is_open),
                engine.i.valid.eq(self.i.valid & is_open),
                part.lanes.eq(self.i.payload.lanes),
                part.count.eq(self.i.payload.count),
                part.last.eq(self.i.payload.last),
            ]
        else:
            self._adapt(m, engine, is_open, inside)
        waits = engine.i.ready & ~is_open & (self.i.valid if part_lanes == lanes else part.count != 0)
        # The cycles between a row's last part and its command are that row's.
        loaded = Signal(LOAD_TO_COMMAND - 1)
        m.d.sync += loaded.eq(Cat(enters & part.last, loaded))
        m.d.comb += self.progress.eq(Cat(engine.works, waits & ~loaded.any()))
        self._name(m, banks)
        return m

    def _adapt(self, m: Module, engine: TopKEngine, is_open: Signal, inside: Signal) -> None:
        """One beat is held and fed in parts; the next is taken with the last part of a row that is inside already."""
        lanes, part_lanes = self.config.softmax.lanes, engine.load_lanes
        beat, part = self.i.payload, engine.i.payload
        held, left, last = Signal(beat.lanes.shape()), Signal(range(lanes + 1)), Signal()
        is_last = Signal()
        m.d.comb += [
            is_last.eq(left <= part_lanes),
            self.i.ready.eq((left == 0) | (is_last & inside)),
            engine.i.valid.eq((left != 0) & is_open),
            part.lanes.as_value().eq(held.as_value()),
            part.count.eq(Mux(is_last, left, part_lanes)),
            part.last.eq(is_last & last),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [held.eq(beat.lanes), left.eq(beat.count), last.eq(beat.last)]
        with m.Elif(engine.i.valid & engine.i.ready):
            m.d.sync += [
                held.as_value().eq(held.as_value() >> (part_lanes * self.config.formats.probability_bits)),
                left.eq(left - part.count),
            ]

    def _name(self, m: Module, banks: SurvivorBanks) -> None:
        """Numbers and sizes of the rows, past the engine: for the beats that leave and for `finished`."""
        beat = self.i.payload
        # A row may wait in the adapter beside those that have a bank.
        depth = banks.banks + 1
        m.submodules.whole = whole = Fifo(WholeRow(self.config, self.row_bits), depth)
        m.submodules.names = names = Fifo(self.row_bits, depth)
        place = Signal.like(whole.i.payload.last_beat)
        taken, closes = Signal(), Signal()
        m.d.comb += [
            taken.eq(self.i.valid & self.i.ready),
            closes.eq(taken & beat.last),
            whole.i.valid.eq(closes),
            whole.i.payload.row.eq(beat.row),
            whole.i.payload.last_beat.eq(place),
            whole.i.payload.count.eq(beat.count),
            names.i.valid.eq(closes),
            names.i.payload.eq(beat.row),
            names.o.ready.eq(banks.completes),
            self.finished.eq(banks.completes),
            self.finished_row.row.eq(names.o.payload),
            self.finished_row.survivors.eq(banks.survivors),
            self.overflow.eq(
                banks.overflow | (closes & ~(whole.i.ready & names.i.ready)) | (banks.completes & ~names.o.valid)
            ),
        ]
        wiring.connect(m, whole.o, banks.row)
        with m.If(taken):
            m.d.sync += place.eq(Mux(beat.last, 0, place + 1))
