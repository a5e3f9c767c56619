"""The dot-product array: scores of a query against a beat of keys."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.attention.arithmetic import adder_tree, saturate_signed
from topsieve_rtl.attention.layouts import ROW_BITS, ProductBeat, ScoreBeat
from topsieve_rtl.attention.words import WordGeometry, WordRead, word_control
from topsieve_rtl.stream import Fifo
from topsieve_rtl.topk.networks import delayed, registered
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.attention_latency import attention_latencies, tree_levels
from topsieve_sim.golden.numbers import SCORE_MULTIPLIER_BITS, SCORE_SHIFT_BITS

# Behind the accumulators: score factor, shift; the score is rounded and gets its bias on the way into the FIFO.
_NARROWING_STAGES = 2


class DotProductArray(wiring.Component):
    """One beat of scores from `words` operand words; equal to `topsieve_sim.stepped.dot_product` to the cycle.

    A word is asked for with `read` and taken from `keys` and `query` in the next cycle, as a memory answers. A beat
    occupies the multipliers for `words` cycles: the interval `config.dot_product.interval_cycles(lanes, head_dim)`.
    The score factor travels beside the words, so it may change from beat to beat. Bits:
    `topsieve_sim.golden.dot_product`.

    Parameters
    ----------
    config : lanes, multipliers, formats, largest head dimension.
    row_bits : width of the row number that is carried along.

    Members
    -------
    i : In(stream.Signature(ProductBeat))
    o : Out(stream.Signature(ScoreBeat))
    read : Out(WordRead), the word that is read; its first cycle is that of the beat's handshake.
    keys, query : In, the word read in the cycle before, laid out as `WordGeometry` says; the query's chunks once.
    words : In, operand words of a beat, at least 1; changed only while the array is empty.
    multiplier, shift : In, the score factor of the word that is read; the same for all words of a beat.

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
        self.geometry = geometry = WordGeometry(config.dot_product, config.softmax.lanes, config.max_head_dim)
        formats, split = config.formats, config.dot_product.lane_split
        super().__init__(
            {
                "i": In(stream.Signature(ProductBeat(config, row_bits))),
                "o": Out(stream.Signature(ScoreBeat(config, row_bits))),
                "read": Out(WordRead(geometry)),
                "keys": In(data.ArrayLayout(signed(formats.key_bits), config.dot_product.multipliers)),
                "query": In(data.ArrayLayout(signed(formats.query_bits), geometry.chunks_per_word * split)),
                "words": In(range(geometry.words + 1)),
                "multiplier": In(SCORE_MULTIPLIER_BITS),
                "shift": In(SCORE_SHIFT_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        geometry, formats = self.geometry, self.config.formats
        depth = attention_latencies(self.config).dot_product_depth
        beat = self.i.payload
        m.submodules.pending = pending = Fifo(beat.shape(), depth)
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
            pending.i.payload.eq(beat),
        ]
        control = word_control(m, start, self.words, self.read, geometry)
        m.d.comb += busy.eq(control.busy)

        # The word that was asked for a cycle ago. What leaves a block RAM comes late: operands have the register, and products
        # stand before the first level of the tree.
        split, lanes = geometry.array.lane_split, geometry.lanes
        query = [registered(m, element, f"query_{n}") for n, element in enumerate(self.query)]
        products = []
        for n, key in enumerate(self.keys):
            segment, element = divmod(n, split)
            products.append(registered(m, key, f"key_{n}") * query[segment // lanes * split + element])

        # Trees over a segment and over the segments of a lane.
        sums = [
            adder_tree(m, products[segment * split : (segment + 1) * split], f"segment_{segment}")
            for segment in range(geometry.segments)
        ]
        rows = geometry.rows_per_word
        sums = [adder_tree(m, sums[row::rows], f"lane_{row}") for row in range(rows)]
        levels = tree_levels(split) + tree_levels(geometry.chunks_per_word)
        flags = delayed(m, Cat(self.read.valid, self.read.chunk == 0, self.read.last), 2 + levels, "flags")
        group = delayed(m, control.group, 2 + levels, "group")
        multiplier = delayed(m, self.multiplier, 3 + levels, "multiplier")
        shift = delayed(m, self.shift, 3 + levels + 1, "shift")
        accumulators = []
        for lane in range(lanes):
            total = Signal(signed(formats.dot_product_bits(geometry.head_dim)), name=f"accumulator_{lane}")
            with m.If(flags[0] & (group == lane // rows)):
                m.d.sync += total.eq(Mux(flags[1], 0, total) + sums[lane % rows])
            accumulators.append(total)

        # Narrowing: clamped in halves, then rounded and added to the bias in one step; the largest score is not rounded up.
        finished = delayed(m, flags[2], 1 + _NARROWING_STAGES, "finished")
        scores, bits = fifo.i.payload.lanes, formats.score_bits
        for lane, total in enumerate(accumulators):
            scaled = registered(m, total * multiplier, f"scaled_{lane}")
            halves = registered(m, saturate_signed(m, (scaled << 1) >> shift, bits + 1), f"halves_{lane}")
            rounds_up = halves[0] & (halves != (1 << bits) - 1)
            # The rounding is the carry between the lowest bits.
            score = Cat(1, halves[1:]).as_signed() + Cat(rounds_up, pending.o.payload.bias[lane]).as_signed()
            m.d.comb += scores[lane].eq(saturate_signed(m, score >> 1, bits))
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
