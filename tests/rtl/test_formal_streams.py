# amaranth: UnusedElaboratable=no
"""Proofs of the stream parts, and proofs that the proofs can fail."""

from __future__ import annotations

import pytest
from amaranth import unsigned

from rtl.harness import tool_or_skip
from rtl.harness.datapaths import Affine
from rtl.harness.proofs import CreditProof, FifoProof, PipelineProof
from topsieve_rtl.formal import Mode, ProofError, prove
from topsieve_rtl.stream import CreditPipeline, Fifo, Storage
from topsieve_rtl.tools import executable

BITS = 3


@pytest.fixture(autouse=True)
def _solver():
    for tool in ("yowasp-sby", "yices-smt2"):
        tool_or_skip(lambda tool=tool: executable(tool))


def affine_bits(picked, left):
    return left == (3 * picked + 1)[:BITS]


@pytest.mark.parametrize(
    ("depth", "storage"),
    [(1, Storage.REGISTERS), (3, Storage.REGISTERS), (5, Storage.LUT_RAM), (4, Storage.BLOCK_RAM)],
)
def test_fifo_keeps_order_and_content_for_ever(depth, storage):
    prove(FifoProof(Fifo(unsigned(BITS), depth, storage, observed=True)), depth=3)


def test_a_fifo_without_its_first_word_in_a_register_keeps_order_and_content_for_ever():
    prove(FifoProof(Fifo(unsigned(BITS), 5, Storage.LUT_RAM, front=False, observed=True)), depth=3)


def test_the_assumptions_let_a_fifo_fill_up():
    prove(FifoProof(Fifo(unsigned(BITS), 3, Storage.LUT_RAM, observed=True)), depth=8, mode=Mode.COVER)


@pytest.mark.parametrize(("stages", "depth", "interval"), [(0, 1, 1), (3, 4, 1), (2, 3, 3)])
def test_the_output_fifo_of_a_pipeline_never_overflows(stages, depth, interval):
    prove(CreditProof(CreditPipeline(Affine(BITS, stages), depth, interval)), depth=3)


def test_a_pipeline_computes_in_order_and_never_starves():
    prove(PipelineProof(CreditPipeline(Affine(BITS, 2), 3), affine_bits), depth=12, mode=Mode.BOUNDED)


@pytest.mark.full
@pytest.mark.parametrize(("depth", "storage"), [(16, Storage.LUT_RAM), (16, Storage.BLOCK_RAM)])
def test_a_large_fifo_keeps_order_for_ever(depth, storage):
    prove(FifoProof(Fifo(unsigned(32), depth, storage, observed=True)), depth=3)


@pytest.mark.full
@pytest.mark.parametrize(("stages", "depth", "interval"), [(1, 2, 1), (2, 3, 2), (3, 4, 1)])
def test_a_pipeline_computes_in_order_for_longer(stages, depth, interval):
    unit = CreditPipeline(Affine(BITS, stages), depth, interval)
    prove(PipelineProof(unit, affine_bits), depth=18, mode=Mode.BOUNDED)


def test_a_wrong_function_is_refuted():
    with pytest.raises(ProofError, match="bmc failed"):
        prove(
            PipelineProof(CreditPipeline(Affine(BITS, 1), 2), lambda picked, left: left == (3 * picked)[:BITS]),
            depth=6,
            mode=Mode.BOUNDED,
        )


class OverflowingPipeline(CreditPipeline):
    """A credit pipeline that hands out one credit more than its FIFO has slots."""

    def elaborate(self, platform):
        m = super().elaborate(platform)
        m.d.comb += self.i.ready.eq(1)
        return m


def test_an_overflow_is_refuted():
    with pytest.raises(ProofError):
        prove(CreditProof(OverflowingPipeline(Affine(BITS, 1), 2)), depth=8, mode=Mode.BOUNDED)


def test_depth_is_checked():
    with pytest.raises(ValueError, match="depth must be at least 1"):
        prove(FifoProof(Fifo(unsigned(BITS), 1, observed=True)), depth=0)
