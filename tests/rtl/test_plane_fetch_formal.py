# amaranth: UnusedElaboratable=no
"""The plane fetcher proven on a small instance: legal bursts, stable handshakes, no overflow, no standstill."""

from __future__ import annotations

import pytest
from amaranth import Module, Mux, Signal
from amaranth.asserts import AnySeq
from amaranth.hdl import Assert, Assume, Cover, Elaboratable

from rtl.harness import tool_or_skip
from topsieve_rtl.formal import Mode, ProofError, assert_stream, assume_stream, never_starves, prove
from topsieve_rtl.memory import PlaneFetcher
from topsieve_rtl.stream import Fifo
from topsieve_rtl.tools import executable
from topsieve_sim.golden.plane_fetch import PlaneFetchShape

SMALL = PlaneFetchShape(
    lanes=2,
    element_bits=(6, 4),
    data_bits=16,
    address_bits=13,
    stride_bits=3,
    max_rows=3,
    max_elements=5,
    max_burst_words=2,
    max_outstanding=2,
    buffer_words=3,
    merge_bytes=6,
)


@pytest.fixture(autouse=True)
def _solver():
    for tool in ("yowasp-sby", "yices-smt2"):
        tool_or_skip(lambda tool=tool: executable(tool))


class FetcherProof(Elaboratable):
    """Any commands and indices, a memory that answers what was asked when it likes, a consumer with any stalls.

    With `patience`, nobody outside stalls; then something crosses a port at least every `patience` cycles while a
    command is inside.
    """

    def __init__(self, shape: PlaneFetchShape, patience: int = 0, unit: type[PlaneFetcher] = PlaneFetcher) -> None:
        self.shape, self.patience, self.unit = shape, patience, unit

    def elaborate(self, platform):
        m = Module()
        shape = self.shape
        m.submodules.unit = unit = self.unit(shape)
        m.submodules.asked = asked = Fifo(8, shape.max_outstanding + 1)
        assume_stream(m, unit.command, "command")
        assume_stream(m, unit.index, "index")
        command = unit.command.payload
        m.d.comb += Assume(command.rows <= shape.max_rows)
        m.d.comb += Assume(command.elements <= shape.max_elements)

        # The memory: answers bursts in order, RLAST with the last word, at the earliest in the cycle after AR.
        address, answer = unit.address, unit.data
        assert_stream(m, address, "address")
        crossed = Signal()
        word = Signal(8)
        m.d.comb += [
            address.ready.eq(AnySeq(1)),
            crossed.eq(address.valid & address.ready),
            asked.i.valid.eq(crossed),
            asked.i.payload.eq(address.payload.words_minus_one),
            answer.valid.eq(AnySeq(1) & asked.o.valid),
            answer.payload.last.eq(word == asked.o.payload),
            answer.payload.data.eq(AnySeq(shape.data_bits)),
            answer.payload.response.eq(AnySeq(2)),
            asked.o.ready.eq(answer.valid & answer.payload.last),
            Assert(answer.ready),
            Assert(~crossed | asked.i.ready),
        ]
        with m.If(answer.valid):
            m.d.sync += word.eq(Mux(answer.payload.last, 0, word + 1))

        # Burst legality.
        size = shape.data_bytes
        place = address.payload.address & 0xFFF
        with m.If(address.valid):
            m.d.comb += [
                Assert(address.payload.address & (size - 1) == 0),
                Assert(address.payload.words_minus_one < shape.max_burst_words),
                Assert(place + (address.payload.words_minus_one + 1) * size <= 4096),
            ]
        m.d.comb += [
            Assert(unit.splitter.free <= shape.buffer_words),
            Assert(unit.splitter.outstanding <= shape.max_outstanding),
            Assert(unit.aligner.buffered + unit.splitter.free <= shape.buffer_words),
        ]
        with m.If(answer.valid):
            m.d.comb += Assert(unit.aligner.buffered < shape.buffer_words)

        m.d.comb += unit.o.ready.eq(AnySeq(1))
        assert_stream(m, unit.o, "output")
        done = Signal(4)
        left = unit.o.valid & unit.o.ready
        with m.If(left & unit.o.payload.final & (done != 15)):
            m.d.sync += done.eq(done + 1)
        loaded = Signal(4)
        with m.If(unit.command.valid & unit.command.ready & (loaded != 15)):
            m.d.sync += loaded.eq(loaded + 1)
        m.d.comb += [
            Assert(done <= loaded),
            Cover((done == 1) & (word == 1)),
            Cover(unit.o.valid & unit.o.payload.final & (unit.o.payload.status == 3)),
            Cover(address.valid & (place + (address.payload.words_minus_one + 1) * size == 4096)),
        ]
        if self.patience:
            m.d.comb += [
                Assume(address.ready),
                Assume(unit.o.ready),
                Assume(answer.valid == asked.o.valid),
                Assume(unit.index.valid),
            ]
            anything = crossed | answer.valid | left | (unit.index.valid & unit.index.ready)
            never_starves(m, done != loaded, anything, self.patience, "progress")
        return m


def test_bursts_and_handshakes_are_legal():
    prove(FetcherProof(SMALL), depth=13, mode=Mode.BOUNDED)


@pytest.mark.full
def test_bursts_and_handshakes_are_legal_for_longer():
    prove(FetcherProof(SMALL), depth=22, mode=Mode.BOUNDED)


def test_the_assumptions_let_commands_run_to_their_end():
    prove(FetcherProof(SMALL), depth=22, mode=Mode.COVER)


def test_a_patient_neighbourhood_never_waits_long():
    prove(FetcherProof(SMALL, patience=9), depth=14, mode=Mode.BOUNDED)


class Careless(PlaneFetcher):
    """Forgets the boundary: every burst is a word longer than it may be."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.address.payload.words_minus_one.eq(self.splitter.address.payload.words_minus_one + 1)
        return m


def test_a_burst_too_long_is_refuted():
    with pytest.raises(ProofError):
        prove(FetcherProof(SMALL, unit=Careless), depth=12, mode=Mode.BOUNDED)
