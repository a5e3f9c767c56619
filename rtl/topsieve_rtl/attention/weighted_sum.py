"""The weighted-sum array: output rows from beats of probabilities and values."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.attention.arithmetic import adder_tree, round_half_up_shift, saturate_signed
from topsieve_rtl.attention.layouts import ROW_BITS, OutputRow, ProbabilityBeat
from topsieve_rtl.attention.words import WordGeometry, WordRead, word_control, word_register
from topsieve_rtl.stream import Fifo, Storage
from topsieve_rtl.topk.networks import delayed, registered
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.attention_latency import attention_latencies, tree_levels


class WeightedSumArray(wiring.Component):
    """One output row from the beats of a row; equal to `topsieve_sim.stepped.weighted_sum` to the cycle.

    A word is asked for with `read` and taken from `values` in the next cycle, as a memory answers. A beat occupies the
    multipliers for `words` cycles: the interval `config.weighted_sum.interval_cycles(lanes, head_dim)`. A row takes its
    slot of the output FIFO with its first beat. Bits: `topsieve_sim.golden.weighted_sum`.

    Parameters
    ----------
    config : lanes, multipliers, formats, capacity, largest head dimension.
    row_bits : width of the row number that is carried along.

    Members
    -------
    i : In(stream.Signature(ProbabilityBeat)), all beats of a row but the last full
    o : Out(stream.Signature(OutputRow))
    read : Out(WordRead), the word that is read; its first cycle is that of the beat's handshake.
    values : In, the word read in the cycle before, laid out as `WordGeometry` says.
    words : In, operand words of a beat, at least 1; changed only while the array is empty.

    Attributes
    ----------
    overflow : a queue inside is written while full or read while empty; never, because of the credits. For proofs.

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
        self.geometry = WordGeometry(config.weighted_sum, config.softmax.lanes, config.max_head_dim)
        super().__init__(
            {
                "i": In(stream.Signature(ProbabilityBeat(config, row_bits))),
                "o": Out(stream.Signature(OutputRow(config, row_bits))),
                "read": Out(WordRead(self.geometry)),
                "values": In(data.ArrayLayout(signed(config.formats.value_bits), config.weighted_sum.multipliers)),
                "words": In(range(self.geometry.words + 1)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        geometry, formats = self.geometry, self.config.formats
        depth = attention_latencies(self.config).output_rows
        beat = self.i.payload
        m.submodules.pending = pending = Fifo(self.row_bits, depth)
        # A row's elements are too wide for registers, and nothing is decided from them, unlike from its number.
        m.submodules.fifo = fifo = Fifo(self.o.payload.elements.shape(), depth, Storage.LUT_RAM, front=False)
        m.submodules.rows = rows = Fifo(self.row_bits, depth)

        # Admission: `open` while a row has begun and its last beat has not come.
        credits_used, busy, start = Signal(range(depth + 1)), Signal(), Signal()
        is_open, opens = Signal(), Signal()
        left = self.o.valid & self.o.ready
        m.d.sync += credits_used.eq(credits_used + opens - left)
        m.d.comb += [
            self.i.ready.eq(~busy & (is_open | (credits_used != depth))),
            start.eq(self.i.valid & self.i.ready),
            opens.eq(start & ~is_open),
            pending.i.valid.eq(opens),
            pending.i.payload.eq(beat.row),
        ]
        last_beat = Signal()
        with m.If(start):
            m.d.sync += [is_open.eq(~beat.last), last_beat.eq(beat.last)]
        control = word_control(m, start, self.words, self.read, geometry)
        m.d.comb += busy.eq(control.busy)
        closes = self.read.last & Mux(start, beat.last, last_beat)

        sums = self._sums(m, start)
        latency = 2 + tree_levels(geometry.rows_per_word)
        flags = delayed(m, Cat(self.read.valid, opens, closes), latency, "flags")
        chunk_word = delayed(m, self.read.chunk, latency, "chunk")
        elements = self._accumulate(m, sums, flags[0], flags[1], chunk_word)

        finished = registered(m, flags[2], "finished")
        for element, total in enumerate(elements):
            rounded = round_half_up_shift(total, formats.probability_bits)
            m.d.comb += fifo.i.payload[element].eq(saturate_signed(m, rounded, formats.output_bits))
        m.d.comb += [
            self.overflow.eq((opens & ~pending.i.ready) | (finished & ~(pending.o.valid & fifo.i.ready))),
            fifo.i.valid.eq(finished),
            rows.i.valid.eq(finished),
            rows.i.payload.eq(pending.o.payload),
            pending.o.ready.eq(finished),
            self.o.valid.eq(fifo.o.valid),
            self.o.payload.elements.eq(fifo.o.payload),
            self.o.payload.row.eq(rows.o.payload),
            fifo.o.ready.eq(self.o.ready),
            rows.o.ready.eq(self.o.ready),
        ]
        return m

    def _sums(self, m: Module, start: Signal) -> list[list[Value]]:
        """Per chunk of a word and per element, the sum over the word's rows: operand registers, products, trees."""
        geometry, beat, formats = self.geometry, self.i.payload, self.config.formats
        split, rows = geometry.array.lane_split, geometry.rows_per_word
        present = [Mux(beat.count > lane, beat.lanes[lane], 0) for lane in range(geometry.lanes)]
        turns = [Cat(present[first : first + rows]) for first in range(0, geometry.lanes, rows)]
        probabilities = word_register(m, start, self.read.valid, turns, "probabilities", rotate=True)
        # What leaves a block RAM comes late: operands have the register, and products stand before the tree.
        taken = registered(m, probabilities, "taken")
        products = [
            registered(m, value, f"value_{n}") * taken.word_select(n // split % rows, formats.probability_bits)
            for n, value in enumerate(self.values)
        ]
        return [
            [
                adder_tree(
                    m,
                    [products[(chunk * rows + row) * split + element] for row in range(rows)],
                    f"sum_{chunk}_{element}",
                )
                for element in range(split)
            ]
            for chunk in range(geometry.chunks_per_word)
        ]

    def _accumulate(
        self, m: Module, sums: list[list[Value]], valid: Value, opens: Value, chunk_word: Value
    ) -> list[Value]:
        """One accumulator an element; a row's first word clears those that it does not reach."""
        geometry = self.geometry
        width = self.config.formats.output_accumulator_bits(self.config.capacity)
        elements = []
        for element in range(geometry.head_dim):
            chunk, place = divmod(element, geometry.array.lane_split)
            word, part = divmod(chunk, geometry.chunks_per_word)
            total = Signal(signed(width), name=f"accumulator_{element}")
            with m.If(valid & (chunk_word == word)):
                m.d.sync += total.eq(Mux(opens, 0, total) + sums[part][place])
            with m.Elif(valid & opens):
                m.d.sync += total.eq(0)
            elements.append(total)
        return elements
