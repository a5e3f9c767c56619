"""The dot-product array: scores of a query against a beat of keys."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.attention.arithmetic import adder_tree, round_half_up_shift, saturate_signed
from topsieve_rtl.attention.layouts import ROW_BITS, ScoreBeat, ScoredBeat
from topsieve_rtl.attention.words import WordControl, WordGeometry, word_control, word_register
from topsieve_rtl.stream import Fifo
from topsieve_rtl.topk.networks import delayed, registered
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.attention_latency import attention_latencies, tree_levels
from topsieve_sim.golden.numbers import SCORE_MULTIPLIER_BITS, SCORE_SHIFT_BITS

# Behind the accumulators: score factor, rounding; the bias is added on the way into the FIFO.
_NARROWING_STAGES = 2


class DotProductArray(wiring.Component):
    """One beat of scores from `words` operand words; equal to `topsieve_sim.stepped.dot_product` to the cycle.

    The operands are held and read word by word, so a beat occupies the multipliers for `words` cycles: the interval
    `config.dot_product.interval_cycles(lanes, head_dim)`. Bits: `topsieve_sim.golden.dot_product`.

    Parameters
    ----------
    config : lanes, multipliers, formats, largest head dimension.
    row_bits : width of the row number that is carried along.

    Members
    -------
    i : In(stream.Signature(ScoredBeat))
    o : Out(stream.Signature(ScoreBeat))
    words : In, operand words of a beat, at least 1; changed only while the array is empty.
    multiplier, shift : In, the score factor; changed only while the array is empty.

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
        self.geometry = WordGeometry(config.dot_product, config.softmax.lanes, config.max_head_dim)
        super().__init__(
            {
                "i": In(stream.Signature(ScoredBeat(config, row_bits))),
                "o": Out(stream.Signature(ScoreBeat(config, row_bits))),
                "words": In(range(self.geometry.words + 1)),
                "multiplier": In(SCORE_MULTIPLIER_BITS),
                "shift": In(SCORE_SHIFT_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        geometry, formats = self.geometry, self.config.formats
        depth = attention_latencies(self.config).dot_product_depth
        beat = self.i.payload
        info = data.StructLayout(
            {
                "bias": data.ArrayLayout(formats.score_bits, geometry.lanes),
                "count": range(geometry.lanes + 1),
                "last": 1,
                "second_pass": 1,
                "row": self.row_bits,
            }
        )
        m.submodules.pending = pending = Fifo(info, depth)
        m.submodules.fifo = fifo = Fifo(self.o.payload.shape(), depth)
        wiring.connect(m, fifo.o, wiring.flipped(self.o))

        # Admission: a credit is a slot of both FIFOs, from here until the beat has left.
        credits_used, busy, start = Signal(range(depth + 1)), Signal(), Signal()
        left = self.o.valid & self.o.ready
        m.d.sync += credits_used.eq(credits_used + start - left)
        m.d.comb += [
            self.i.ready.eq((credits_used != depth) & ~busy),
            start.eq(self.i.valid & self.i.ready),
            pending.i.valid.eq(start),
            pending.i.payload.bias.as_value().eq(beat.bias.as_value()),
            pending.i.payload.count.eq(beat.count),
            pending.i.payload.last.eq(beat.last),
            pending.i.payload.second_pass.eq(beat.second_pass),
            pending.i.payload.row.eq(beat.row),
        ]
        control = word_control(m, start, self.words, busy, geometry)
        products = self._products(m, start, control)

        # Trees over a segment and over the segments of a lane.
        split, lanes = geometry.array.lane_split, geometry.lanes
        sums = [
            adder_tree(m, products[segment * split : (segment + 1) * split], f"segment_{segment}")
            for segment in range(geometry.segments)
        ]
        rows = geometry.rows_per_word
        sums = [adder_tree(m, sums[row::rows], f"lane_{row}") for row in range(rows)]
        levels = tree_levels(split) + tree_levels(geometry.chunks_per_word)
        flags = delayed(m, Cat(control.valid, control.chunk == 0, control.valid & control.last), 2 + levels, "flags")
        group = delayed(m, control.group, 2 + levels, "group")
        accumulators = []
        for lane in range(lanes):
            total = Signal(signed(formats.dot_product_bits(geometry.head_dim)), name=f"accumulator_{lane}")
            with m.If(flags[0] & (group == lane // rows)):
                m.d.sync += total.eq(Mux(flags[1], 0, total) + sums[lane % rows])
            accumulators.append(total)

        # Narrowing.
        finished = delayed(m, flags[2], 1 + _NARROWING_STAGES, "finished")
        scores = fifo.i.payload.lanes
        for lane, total in enumerate(accumulators):
            scaled = registered(m, total * self.multiplier, f"scaled_{lane}")
            narrowed = saturate_signed(round_half_up_shift(scaled, self.shift), formats.score_bits)
            score = registered(m, narrowed, f"score_{lane}")
            bias = pending.o.payload.bias[lane].as_signed()
            m.d.comb += scores[lane].eq(saturate_signed(score + bias, formats.score_bits))
        m.d.comb += [
            self.overflow.eq((start & ~pending.i.ready) | (finished & ~(pending.o.valid & fifo.i.ready))),
            fifo.i.valid.eq(finished),
            pending.o.ready.eq(finished),
            fifo.i.payload.count.eq(pending.o.payload.count),
            fifo.i.payload.last.eq(pending.o.payload.last),
            fifo.i.payload.second_pass.eq(pending.o.payload.second_pass),
            fifo.i.payload.row.eq(pending.o.payload.row),
        ]
        return m

    def _products(self, m: Module, start: Signal, control: WordControl) -> list[Value]:
        """Operand registers and products, segment by segment: two cycles after the word control."""
        geometry, beat, formats = self.geometry, self.i.payload, self.config.formats
        segments, split, lanes = geometry.segments, geometry.array.lane_split, geometry.lanes
        key_words, query_words = [], []
        for word in range(geometry.words):
            places = [geometry.place(word, segment) for segment in range(segments)]
            key_words.append(Cat(Cat(geometry.elements(beat.keys[lane], chunk)) for chunk, lane in places))
        # The lanes of a word share their query chunks, and so do the words whose lanes take turns.
        chunks = geometry.chunks_per_word
        for chunk_word in range(geometry.words // geometry.words_per_chunk):
            wanted = range(chunk_word * chunks, (chunk_word + 1) * chunks)
            query_words.append(Cat(Cat(geometry.elements(beat.query, chunk)) for chunk in wanted))
        keys = word_register(m, start, key_words, "keys")
        query = word_register(m, start, query_words, "query", control.group == 0)
        products = []
        for n in range(segments * split):
            segment, element = divmod(n, split)
            key = keys.word_select(n, formats.key_bits).as_signed()
            place = segment // lanes * split + element
            chunk_element = query.word_select(place, formats.query_bits).as_signed()
            products.append(registered(m, key * chunk_element, f"product_{n}"))
        return products
