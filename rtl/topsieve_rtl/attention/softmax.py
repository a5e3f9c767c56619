"""The softmax unit: fill, exponentials, reciprocal and decision, normalise."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.attention.activity import Progress
from topsieve_rtl.attention.arithmetic import adder_tree, maximum_tree, round_half_up_shift, saturate_unsigned
from topsieve_rtl.attention.exponential import Exponentials
from topsieve_rtl.attention.layouts import ROW_BITS, ProbabilityBeat, ScoreBeat
from topsieve_rtl.attention.reciprocal import Reciprocal
from topsieve_rtl.attention.row_buffer import RowBuffer
from topsieve_rtl.stream import Fifo
from topsieve_rtl.topk.networks import delayed, registered
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.attention_latency import attention_latencies, beats, tree_levels


class Decision(data.StructLayout):
    """A row's decision; `dropped` rows want a second pass."""

    def __init__(self, row_bits: int) -> None:
        super().__init__({"row": row_bits, "dropped": 1})


class Softmax(wiring.Component):
    """Scores to probabilities, row by row; equal to `topsieve_sim.stepped.softmax` to the cycle.

    Three engines share two row buffers of whole beats: *fill* writes scores and keeps the running maximum,
    *exponentials* reads them back, writes exponentials and sums them, *normalise* multiplies those with the reciprocal
    of their sum. A row whose largest probability is under the threshold is dropped unless it is a second pass.
    Bits: `topsieve_sim.golden.softmax`, `topsieve_sim.golden.progressive`.

    Parameters
    ----------
    config : lanes, capacity, formats, buffering.
    row_bits : width of the row number that is carried along.

    Members
    -------
    i : In(stream.Signature(ScoreBeat)), rows of 1 to `capacity` scores; all beats of a row but the last full
    o : Out(stream.Signature(ProbabilityBeat)), rows that are not dropped, in order
    threshold : In, in probability steps (`golden.progressive.integer_threshold`); 0 drops nothing
    decided : Out(1), a row has been decided in the cycle before; a tap that cannot be stalled
    decision : Out(Decision), meaningful with `decided`

    Attributes
    ----------
    overflow : a queue or buffer inside is written while full or read while empty; never, because of the credits.
        For proofs.
    exponential_progress, normalise_progress : what these engines do, for counters.

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
        self.exponential_progress, self.normalise_progress = Signal(Progress()), Signal(Progress())
        self.cycles = attention_latencies(config)
        lanes = config.softmax.lanes
        # A row from its last score to its decision.
        self._row = data.StructLayout(
            {
                "beats": range(beats(config.capacity, lanes) + 1),
                "count": range(lanes + 1),
                "second_pass": 1,
                "row": row_bits,
            }
        )
        super().__init__(
            {
                "i": In(stream.Signature(ScoreBeat(config, row_bits))),
                "o": Out(stream.Signature(ProbabilityBeat(config, row_bits))),
                "threshold": In(config.formats.probability_bits + 1),
                "decided": Out(1),
                "decision": Out(Decision(row_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        cycles, formats, lanes = self.cycles, self.config.formats, self.config.softmax.lanes
        m.submodules.scores = scores = RowBuffer(formats.score_bits * lanes, cycles.score_beats)
        m.submodules.exponentials = exponentials = RowBuffer(formats.exponential_bits * lanes, cycles.exponential_beats)
        filled_row = data.StructLayout({"maximum": signed(formats.score_bits), "info": self._row})
        m.submodules.filled = filled = Fifo(filled_row, cycles.row_slots)
        m.submodules.reading = reading = Fifo(self._row, cycles.row_slots)
        m.submodules.reciprocal = reciprocal = Reciprocal(formats, self.config.capacity)
        decided_row = data.StructLayout(
            {
                "mantissa": formats.reciprocal_bits,
                "excess": range(reciprocal.largest_excess + 1),
                "dropped": 1,
                "info": self._row,
            }
        )
        m.submodules.decided_rows = decided = Fifo(decided_row, cycles.row_slots)

        read_rows = self._fill(m, scores, filled)
        freed_rows, summed = self._exponentials(m, scores, exponentials, filled, reading, reciprocal, read_rows)
        self._decide(m, summed, reading, reciprocal, decided)
        fifo = self._normalise(m, exponentials, decided, freed_rows)
        queues = (filled, reading, decided, fifo)
        m.d.comb += self.overflow.eq(
            Cat([queue.i.valid & ~queue.i.ready for queue in queues] + [reading.o.ready & ~reading.o.valid]).any()
            | scores.overflow
            | exponentials.overflow
        )
        return m

    def _fill(self, m: Module, scores: RowBuffer, filled: Fifo) -> Signal:
        """Scores into their buffer, the row's maximum into the queue; returns the strobe that frees a row's slot."""
        beat, lanes = self.i.payload, self.config.softmax.lanes
        lowest = -(1 << (self.config.formats.score_bits - 1))
        levels = tree_levels(lanes)
        take, is_filling, row_freed = Signal(), Signal(), Signal()
        rows_used = Signal(range(self.cycles.row_slots + 1))
        m.d.comb += [
            self.i.ready.eq(scores.room & (is_filling | (rows_used != self.cycles.row_slots))),
            take.eq(self.i.valid & self.i.ready),
            scores.reserve.eq(take),
            scores.write.eq(take),
            scores.word_in.eq(beat.lanes.as_value()),
        ]
        m.d.sync += rows_used.eq(rows_used + (take & ~is_filling) - row_freed)
        with m.If(take):
            m.d.sync += is_filling.eq(~beat.last)

        live = [Mux(beat.count > lane, beat.lanes[lane], lowest) for lane in range(lanes)]
        largest = maximum_tree(m, live, "largest")
        taken = delayed(m, Cat(take, ~is_filling, beat.last), levels, "taken")
        row = Cat(beat.count, beat.second_pass, beat.row)
        row = delayed(m, row, levels, "row")
        maximum, maximum_now = Signal(signed(self.config.formats.score_bits)), Signal.like(filled.i.payload.maximum)
        count, count_now = Signal.like(filled.i.payload.info.beats), Signal.like(filled.i.payload.info.beats)
        m.d.comb += [
            maximum_now.eq(Mux(taken[1] | (largest > maximum), largest, maximum)),
            count_now.eq(Mux(taken[1], 1, count + 1)),
            filled.i.valid.eq(taken[0] & taken[2]),
            filled.i.payload.maximum.eq(maximum_now),
            filled.i.payload.info.eq(Cat(count_now, row)),
        ]
        with m.If(taken[0]):
            m.d.sync += [maximum.eq(maximum_now), count.eq(count_now)]
        return row_freed

    def _exponentials(
        self,
        m: Module,
        scores: RowBuffer,
        exponentials: RowBuffer,
        filled: Fifo,
        reading: Fifo,
        reciprocal: Reciprocal,
        score_row_freed: Signal,
    ) -> tuple[Signal, Value]:
        """Scores to exponentials and their sum; returns the strobe that frees a row's slot behind, and `sum` is whole."""
        lanes, row = self.config.softmax.lanes, filled.o.payload
        place = Signal.like(row.info.beats)
        rows_used, row_freed = Signal(range(self.cycles.row_slots + 1)), Signal()
        issue, first, last = Signal(), Signal(), Signal()
        m.d.comb += [
            first.eq(place == 0),
            last.eq(place + 1 == row.info.beats),
            issue.eq(filled.o.valid & exponentials.room & (~first | (rows_used != self.cycles.row_slots))),
            scores.read.eq(issue),
            exponentials.reserve.eq(issue),
            filled.o.ready.eq(issue & last),
            score_row_freed.eq(issue & last),
            reading.i.valid.eq(issue & last),
            reading.i.payload.eq(row.info),
        ]
        m.d.comb += self.exponential_progress.eq(Cat(issue, filled.o.valid))
        m.d.sync += rows_used.eq(rows_used + (issue & first) - row_freed)
        with m.If(issue):
            m.d.sync += place.eq(Mux(last, 0, place + 1))

        # The memory answers in the next cycle.
        m.submodules.exponential = exponential = Exponentials(self.config.formats, lanes)
        m.d.comb += [
            exponential.scores.as_value().eq(scores.word_out),
            exponential.maximum.eq(registered(m, row.maximum, "maximum_read")),
            exponential.live.eq(
                registered(m, Cat(~last | (row.info.count > lane) for lane in range(lanes)), "live_read")
            ),
        ]
        flags = delayed(m, Cat(issue, first, last), 1 + Exponentials.STAGES, "exponential_flags")
        m.d.comb += [
            exponentials.write.eq(flags[0]),
            exponentials.word_in.eq(exponential.o.as_value()),
        ]
        partial = adder_tree(m, list(exponential.o), "partial_sum")
        flags = delayed(m, flags, tree_levels(lanes), "sum_flags")
        total = Signal(reciprocal.row_sum_bits)
        with m.If(flags[0]):
            m.d.sync += total.eq(Mux(flags[1], 0, total) + partial)
        m.d.comb += reciprocal.sum.eq(total)
        return row_freed, registered(m, flags[0] & flags[2], "summed")

    def _decide(self, m: Module, summed: Value, reading: Fifo, reciprocal: Reciprocal, decided: Fifo) -> None:
        """The reciprocal and the decision of a row into the queue of decided rows."""
        done = delayed(m, summed, Reciprocal.STAGES, "reciprocal_done")
        row = decided.i.payload
        m.d.comb += [
            reciprocal.threshold.eq(self.threshold),
            reading.o.ready.eq(done),
            decided.i.valid.eq(done),
            row.mantissa.eq(reciprocal.mantissa),
            row.excess.eq(reciprocal.excess),
            row.dropped.eq(reciprocal.below & ~reading.o.payload.second_pass),
            row.info.eq(reading.o.payload),
        ]
        m.d.sync += [
            self.decided.eq(done),
            self.decision.row.eq(row.info.row),
            self.decision.dropped.eq(row.dropped),
        ]

    def _normalise(self, m: Module, exponentials: RowBuffer, decided: Fifo, row_freed: Signal) -> Fifo:
        """Exponentials times reciprocal into the output FIFO, which is returned; a dropped row is freed whole."""
        formats, lanes, row = self.config.formats, self.config.softmax.lanes, decided.o.payload
        depth = self.cycles.normalise_depth
        m.submodules.fifo = fifo = Fifo(self.o.payload.shape(), depth)
        wiring.connect(m, fifo.o, wiring.flipped(self.o))
        credits_used, place = Signal(range(depth + 1)), Signal.like(row.info.beats)
        step, last, drop = Signal(), Signal(), Signal()
        left = self.o.valid & self.o.ready
        m.d.comb += [
            drop.eq(decided.o.valid & row.dropped),
            step.eq(decided.o.valid & ~row.dropped & (credits_used != depth)),
            last.eq(place + 1 == row.info.beats),
            row_freed.eq(drop | (step & last)),
            decided.o.ready.eq(row_freed),
            exponentials.read.eq(step),
            exponentials.skip.eq(Mux(drop, row.info.beats, 0)),
        ]
        m.d.comb += self.normalise_progress.eq(Cat(step | drop, decided.o.valid))
        m.d.sync += credits_used.eq(credits_used + step - left)
        with m.If(step):
            m.d.sync += place.eq(Mux(last, 0, place + 1))

        mantissa = registered(m, row.mantissa, "mantissa_read")
        excess = delayed(m, row.excess, 2, "excess_read")
        beat = delayed(m, Cat(Mux(last, row.info.count, lanes), last, row.info.row), 2, "beat_read")
        m.d.comb += [
            fifo.i.valid.eq(delayed(m, step, 2, "stepped")),
            Cat(fifo.i.payload.count, fifo.i.payload.last, fifo.i.payload.row).eq(beat),
        ]
        for lane in range(lanes):
            exponential = exponentials.word_out.word_select(lane, formats.exponential_bits)
            product = registered(m, exponential * mantissa, f"product_{lane}")
            m.d.comb += fifo.i.payload.lanes[lane].eq(self._probability(m, product, excess))
        return fifo

    def _probability(self, m: Module, product: Value, excess: Value) -> Value:
        formats = self.config.formats
        shift = formats.exponential_bits + formats.reciprocal_bits - 2 - formats.probability_bits
        return saturate_unsigned(m, round_half_up_shift(product, excess + shift), formats.probability_bits)
