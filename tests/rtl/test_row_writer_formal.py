# amaranth: UnusedElaboratable=no
"""The row writer proven on a small instance: legal bursts, stable handshakes, words that match them, no standstill."""

from __future__ import annotations

import pytest
from amaranth import Module, Mux, Signal
from amaranth.asserts import AnyConst, AnySeq
from amaranth.hdl import Assert, Assume, Cover, Elaboratable

from rtl.harness import tool_or_skip
from topsieve_rtl.accelerator.writer import RowWriter
from topsieve_rtl.formal import Mode, ProofError, assert_stream, assume_stream, never_starves, prove
from topsieve_rtl.tools import executable
from topsieve_sim.arch import load_config

# Rows of up to three words, records of four; bursts of two.
SMALL = load_config(
    "tiny",
    [
        "capacity=2",
        "importance.heads=2",
        "max_head_dim=3",
        "formats.output_bits=11",
        "memory.beat_bytes=2",
        "memory.axi.burst_words=2",
        "memory.axi.outstanding=2",
        "memory.axi.address_bits=13",
    ],
)


@pytest.fixture(autouse=True)
def _solver():
    for tool in ("yowasp-sby", "yices-smt2"):
        tool_or_skip(lambda tool=tool: executable(tool))


class WriterProof(Elaboratable):
    """Any rows or records of any job, a memory that takes and answers when it likes, but only what was written.

    With `patience`, the memory never stalls and answers at once; then something crosses a port at least every
    `patience` cycles until the writer is idle.
    """

    def __init__(self, patience: int = 0, unit: type[RowWriter] = RowWriter) -> None:
        self.patience, self.unit = patience, unit

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit(SMALL)
        shape = unit.shape
        assume_stream(m, unit.row, "row")
        assume_stream(m, unit.record, "record")
        job = unit.job
        m.d.comb += [
            job.as_value().eq(AnyConst(len(job.as_value()))),
            unit.reports.eq(AnyConst(1)),
            unit.head_write.as_value().eq(AnySeq(len(unit.head_write.as_value()))),
            unit.token_write.as_value().eq(AnySeq(len(unit.token_write.as_value()))),
            Assume((job.head_dim >= 1) & (job.head_dim <= SMALL.max_head_dim)),
            *(
                Assume(place & (shape.data_bytes - 1) == 0)
                for place in (job.output, job.report, job.row_bytes, job.head_bytes)
            ),
        ]
        # The job is registered first.
        started = Signal(2)
        m.d.sync += started.eq(Mux(started == 3, 3, started + 1))
        m.d.comb += Assume((started == 3) | ~(unit.row.valid | unit.record.valid))

        address, word, response = unit.address, unit.word, unit.response
        assert_stream(m, address, "address")
        assert_stream(m, word, "word")
        asked, written = address.valid & address.ready, word.valid & word.ready
        m.d.comb += [address.ready.eq(AnySeq(1)), word.ready.eq(AnySeq(1))]

        # AW: aligned, short enough, inside of 4 kB.
        size, words = shape.data_bytes, address.payload.words_minus_one + 1
        end = (address.payload.address & 0xFFF) + words * size
        with m.If(address.valid):
            m.d.comb += [
                Assert(address.payload.address & (size - 1) == 0),
                Assert(address.payload.words_minus_one < shape.max_burst_words),
                Assert(end <= 4096),
            ]

        # W: as many words as were asked for, after they were asked for; the last one says so. Every word has a strobe.
        left, unanswered = Signal(8), Signal(8)
        closes = written & word.payload.last
        m.d.sync += [
            left.eq(left + Mux(asked, words, 0) - written),
            unanswered.eq(unanswered + closes - response.valid),
        ]
        with m.If(word.valid):
            m.d.comb += [
                Assert(left != 0),
                Assert(word.payload.last == (left == 1)),
                Assert(word.payload.strobes[0]),
            ]
        m.d.comb += [
            Assert(~asked | (left == 0)),
            # B: in the cycle after the last word at the earliest.
            response.valid.eq(AnySeq(1) & (unanswered != 0)),
            response.payload.response.eq(AnySeq(2)),
            Assert(response.ready),
            Assert(unit.outstanding <= shape.max_outstanding),
            Assert(~unit.idle | ((left == 0) & (unanswered == 0))),
        ]
        bad = Signal()
        with m.If(response.valid & response.payload.response[1]):
            m.d.sync += bad.eq(1)
        m.d.comb += [Assert(unit.failed == bad)]

        bursts = Signal(3)
        with m.If(asked & (bursts != 7)):
            m.d.sync += bursts.eq(bursts + 1)
        m.d.comb += [
            Cover((bursts == 3) & unit.idle),
            Cover(address.valid & (end == 4096) & (words == 1)),
        ]
        if self.patience:
            m.d.comb += [Assume(address.ready), Assume(word.ready), Assume(response.valid == (unanswered != 0))]
            never_starves(m, ~unit.idle, asked | written | response.valid, self.patience, "progress")
        return m


def test_bursts_words_and_handshakes_are_legal():
    prove(WriterProof(), depth=14, mode=Mode.BOUNDED)


@pytest.mark.full
def test_bursts_words_and_handshakes_are_legal_for_longer():
    prove(WriterProof(), depth=26, mode=Mode.BOUNDED)


def test_a_writer_never_stands_still():
    prove(WriterProof(patience=1), depth=14, mode=Mode.BOUNDED)


def test_the_interesting_runs_exist():
    prove(WriterProof(), depth=20, mode=Mode.COVER)


class Careless(RowWriter):
    """A writer that knows no 4 kB boundary."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        longest = self.shape.max_burst_words - 1
        m.d.comb += self.address.payload.words_minus_one.eq(longest)
        return m


def test_a_burst_across_the_boundary_is_refuted():
    with pytest.raises(ProofError, match="bmc failed"):
        prove(WriterProof(unit=Careless), depth=8, mode=Mode.BOUNDED)
