"""The arrays with operands that come with the beat and are held, where no key or value bank stands before them."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.attention.dot_product import DotProductArray
from topsieve_rtl.attention.layouts import ROW_BITS, OutputRow, ProductOperands, ScoreBeat, WeightedOperands
from topsieve_rtl.attention.weighted_sum import WeightedSumArray
from topsieve_rtl.attention.words import word_register
from topsieve_sim.arch import AcceleratorConfig


class DotProductOnOperands(wiring.Component):
    """`DotProductArray` with held operands: also pairs of any rows, for similarities.

    Parameters
    ----------
    config, row_bits : see `DotProductArray`.

    Members
    -------
    i : In(stream.Signature(ProductOperands))
    o : Out(stream.Signature(ScoreBeat))
    words : see `DotProductArray`.
    """

    def __init__(self, config: AcceleratorConfig, row_bits: int = ROW_BITS) -> None:
        self.array = DotProductArray(config, row_bits)
        super().__init__(
            {
                "i": In(stream.Signature(ProductOperands(config, row_bits))),
                "o": Out(stream.Signature(ScoreBeat(config, row_bits))),
                "words": self.array.signature.members["words"],
            }
        )

    @property
    def overflow(self) -> Signal:
        """That of the array."""
        return self.array.overflow

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.array = array = self.array
        wiring.connect(m, array.o, wiring.flipped(self.o))
        operands, geometry, read = self.i.payload, array.geometry, array.read
        start = self.i.valid & self.i.ready
        chunks = geometry.chunks_per_word
        key_words = [geometry.word(operands.keys, number) for number in range(geometry.words)]
        query_words = [
            Cat(Cat(geometry.elements(operands.query, chunk)) for chunk in range(first, first + chunks))
            for first in range(0, geometry.words // geometry.words_per_chunk * chunks, chunks)
        ]
        factor = Cat(operands.multiplier, operands.shift)
        held = Signal.like(factor)
        with m.If(start):
            m.d.sync += held.eq(factor)
        m.d.comb += [
            array.i.valid.eq(self.i.valid),
            array.i.payload.eq(operands.beat),
            self.i.ready.eq(array.i.ready),
            array.keys.as_value().eq(word_register(m, start, read.valid, key_words, "keys")),
            array.query.as_value().eq(word_register(m, start, read.valid & read.fresh, query_words, "query")),
            array.words.eq(self.words),
            Cat(array.multiplier, array.shift).eq(Mux(start, factor, held)),
        ]
        return m


class WeightedSumOnOperands(wiring.Component):
    """`WeightedSumArray` with held values: also weighted merging of any rows.

    Parameters
    ----------
    config, row_bits : see `WeightedSumArray`.

    Members
    -------
    i : In(stream.Signature(WeightedOperands))
    o : Out(stream.Signature(OutputRow))
    words : see `WeightedSumArray`.
    """

    def __init__(self, config: AcceleratorConfig, row_bits: int = ROW_BITS) -> None:
        self.array = WeightedSumArray(config, row_bits)
        super().__init__(
            {
                "i": In(stream.Signature(WeightedOperands(config, row_bits))),
                "o": Out(stream.Signature(OutputRow(config, row_bits))),
                "words": self.array.signature.members["words"],
            }
        )

    @property
    def overflow(self) -> Signal:
        """That of the array."""
        return self.array.overflow

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.array = array = self.array
        wiring.connect(m, array.o, wiring.flipped(self.o))
        operands, geometry = self.i.payload, array.geometry
        start = self.i.valid & self.i.ready
        words = [geometry.word(operands.values, number) for number in range(geometry.words)]
        m.d.comb += [
            array.i.valid.eq(self.i.valid),
            array.i.payload.eq(operands.beat),
            self.i.ready.eq(array.i.ready),
            array.values.as_value().eq(word_register(m, start, array.read.valid, words, "values")),
            array.words.eq(self.words),
        ]
        return m
