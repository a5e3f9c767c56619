"""Runs to AXI4 bursts, against credits for their words."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.memory.axi import ReadAddress
from topsieve_rtl.memory.rows import Run
from topsieve_sim.golden.plane_fetch import BOUNDARY_BYTES, PlaneFetchShape


def byte_bits(shape: PlaneFetchShape) -> int:
    """Bits of a byte's place in a bus word."""
    return shape.data_bytes.bit_length() - 1


class ExpectedBurst(data.StructLayout):
    """Which bytes of a burst are wanted: all but `skip` of its first word and `spare` of its last."""

    def __init__(self, shape: PlaneFetchShape) -> None:
        super().__init__({"skip": byte_bits(shape), "spare": byte_bits(shape), "last": 1})


class BurstSplitter(wiring.Component):
    """Cuts runs at 4 kB and at the longest burst; asks for a burst once all of its words have a place.

    A word's place is taken when its burst enters the address register and comes back with `word_freed`.

    Members
    -------
    run : In(stream.Signature(Run))
    address : Out(stream.Signature(ReadAddress))
    expected : Out(stream.Signature(ExpectedBurst)), one for each burst, with it; always ready.
    word_freed, burst_answered : In(1)

    Attributes
    ----------
    free, outstanding : places for words, and bursts asked for; for proofs.
    """

    def __init__(self, shape: PlaneFetchShape) -> None:
        self.shape = shape
        self.free = Signal(range(shape.buffer_words + 1), init=shape.buffer_words)
        self.outstanding = Signal(range(shape.max_outstanding + 1))
        super().__init__(
            {
                "run": In(stream.Signature(Run(shape))),
                "address": Out(stream.Signature(ReadAddress(shape.address_bits))),
                "expected": Out(stream.Signature(ExpectedBurst(shape))),
                "word_freed": In(1),
                "burst_answered": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        shape = self.shape
        low = byte_bits(shape)
        page_words = BOUNDARY_BYTES // shape.data_bytes
        longest = shape.max_burst_words
        run = self.run.payload

        # What is left of the present run, in bus words, and its next burst, known before it is asked for.
        valid = Signal()
        word = Signal(shape.address_bits - low)
        words = Signal(range(max(shape.merge_bytes, shape.max_row_bytes) // shape.data_bytes + 3))
        length, ends = Signal(range(longest + 1)), Signal()
        skip, spare, last = Signal(low), Signal(low), Signal()

        issues, takes = Signal(), Signal()
        m.d.comb += [
            issues.eq(
                valid
                & (~self.address.valid | self.address.ready)
                & (length <= self.free)
                & (self.outstanding != shape.max_outstanding)
            ),
            self.run.ready.eq(~valid | (issues & ends)),
            takes.eq(self.run.valid & self.run.ready),
            self.expected.valid.eq(issues),
            self.expected.payload.skip.eq(skip),
            self.expected.payload.spare.eq(Mux(ends, spare, 0)),
            self.expected.payload.last.eq(last & ends),
        ]
        m.d.sync += [
            self.free.eq(Mux(issues, self.free - length + self.word_freed, self.free + self.word_freed)),
            self.outstanding.eq(self.outstanding + issues - self.burst_answered),
        ]
        with m.If(issues):
            m.d.sync += [
                self.address.valid.eq(1),
                self.address.payload.address.eq(Cat(Const(0, low), word)),
                self.address.payload.words_minus_one.eq(length - 1),
            ]
        with m.Elif(self.address.ready):
            m.d.sync += self.address.valid.eq(0)

        def prepare(first: Value, left: Value) -> None:
            """The next burst begins with word `first` of memory, `left` words before the run ends."""
            remaining = left[: len(words)]
            to_boundary = page_words - (first & (page_words - 1))
            shortest = Mux(remaining < longest, remaining, longest)
            m.d.sync += [
                word.eq(first),
                words.eq(remaining),
                length.eq(Mux(to_boundary < shortest, to_boundary, shortest)),
                ends.eq((remaining <= longest) & (remaining <= to_boundary)),
            ]

        reach = Signal(range(max(shape.merge_bytes, shape.max_row_bytes) + 2 * shape.data_bytes))
        m.d.comb += reach.eq(run.address[:low] + run.bytes + (shape.data_bytes - 1))
        with m.If(takes):
            m.d.sync += [
                valid.eq(1),
                skip.eq(run.address[:low]),
                # The bytes of the last word that are wanted are (reach mod data_bytes) + 1.
                spare.eq(~reach[:low]),
                last.eq(run.last),
            ]
            prepare(run.address[low:], reach >> low)
        with m.Elif(issues):
            m.d.sync += [valid.eq(~ends), skip.eq(0)]
            prepare(word + length, words - length)
        return m
