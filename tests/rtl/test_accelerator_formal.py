# amaranth: UnusedElaboratable=no
"""The sequencer proven on a small machine: stable handshakes, only good jobs, one end a job, no standstill."""

from __future__ import annotations

import pytest
from amaranth import Module, Mux, Signal
from amaranth.asserts import AnySeq
from amaranth.hdl import Assert, Assume, Cover, Elaboratable

from rtl.harness import tool_or_skip
from topsieve_rtl.accelerator.sequencer import Sequencer, State
from topsieve_rtl.formal import Mode, ProofError, assert_stream, never_starves, prove
from topsieve_rtl.tools import executable
from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.golden.accelerator import RunError

# Beats as wide as half a descriptor, so that a job is short.
_LANES = 64
_BEATS = 2


def small_machine() -> AcceleratorConfig:
    fields = load_config("tiny").model_dump()
    fields |= {"capacity": 2, "max_head_dim": 2}
    for array in ("dot_product", "weighted_sum"):
        fields[array] = {"multipliers": _LANES, "lane_split": _LANES}
    fields["softmax"]["lanes"] = 1
    fields["importance"]["heads"] = 2
    return AcceleratorConfig.model_validate(fields)


class SequencerProof(Elaboratable):
    """Any descriptors, and neighbours that answer when they like.

    With `patience`, they answer at once; then the state changes, or something crosses a port, at least every `patience`
    cycles.
    """

    def __init__(self, patience: int = 0, unit: type[Sequencer] = Sequencer) -> None:
        self.patience, self.unit = patience, unit

    def elaborate(self, platform):
        m = Module()
        config = small_machine()
        m.submodules.unit = unit = self.unit(config)
        patient = bool(self.patience)

        def chance():
            return 1 if patient else AnySeq(1)

        # The fetcher: takes a command while it has none, answers with two beats for a descriptor and one for factors.
        beats_left, offered = Signal(range(_BEATS + 1)), Signal()
        beat, payload = unit.fetched, AnySeq(len(unit.fetched.payload.as_value()))
        m.d.comb += [
            unit.command.ready.eq((beats_left == 0) & chance()),
            offered.eq((beats_left != 0) & chance()),
            beat.valid.eq(offered),
            beat.payload.as_value().eq(payload),
            Assume(~offered | (beat.payload.final == (beats_left == 1))),
            unit.read_failed.eq(offered & beat.ready & beat.payload.final & (beat.payload.status != 0)),
        ]
        command_taken = unit.command.valid & unit.command.ready
        beat_taken = beat.valid & beat.ready
        with m.If(command_taken):
            m.d.sync += beats_left.eq(Mux(unit.command.payload.elements > _LANES, _BEATS, 1))
            m.d.comb += Assert(beats_left == 0)
        with m.Elif(beat_taken):
            m.d.sync += beats_left.eq(beats_left - 1)
        with m.If(offered):
            m.d.comb += Assert(beat.ready)

        # The others.
        running, cascade_taken = Signal(), unit.cascade.valid & unit.cascade.ready
        job_taken = unit.job.valid & unit.job.ready
        m.d.comb += [
            unit.start.eq(AnySeq(1)),
            unit.descriptor_address.eq(AnySeq(len(unit.descriptor_address))),
            unit.threshold.eq(AnySeq(len(unit.threshold))),
            unit.live_tokens.eq(AnySeq(2)),
            unit.alive.eq(AnySeq(2)),
            unit.write_failed.eq(AnySeq(1)),
            unit.cascade.ready.eq(chance()),
            unit.writer_idle.eq(chance()),
            unit.job.ready.eq(~running),
            unit.core_done.eq(running & chance()),
            Assume(unit.live_tokens <= config.capacity),
        ]
        with m.If(job_taken):
            m.d.sync += running.eq(1)
        with m.Elif(unit.core_done):
            m.d.sync += running.eq(0)

        for port, label in ((unit.command, "command"), (unit.cascade, "cascade"), (unit.job, "job")):
            assert_stream(m, port, label)
        job = unit.job.payload
        with m.If(unit.job.valid):
            m.d.comb += [
                Assert((job.keys >= 1) & (job.keys <= config.capacity)),
                Assert((job.queries >= 1) & (job.queries <= config.capacity)),
                Assert((job.head_dim >= 1) & (job.head_dim <= config.max_head_dim)),
                Assert(job.heads <= config.importance.heads),
                Assert(job.product_words != 0),
            ]
        before = Signal(State)
        was_busy, ended = Signal(), Signal()
        m.d.sync += [before.eq(unit.state), was_busy.eq(unit.busy), ended.eq(unit.done | (unit.error != 0))]
        m.d.comb += [
            Assert(~(unit.done & (unit.error != 0))),
            Assert(~unit.done | unit.busy),
            Assert((unit.error == 0) | unit.busy),
            Assert(~ended | ~unit.busy),
            Assert(~was_busy | unit.busy | ended),
            Cover(unit.done),
            Cover(unit.error == RunError.BAD_DESCRIPTOR),
            Cover(unit.interrupts & ~unit.done),
        ]
        if patient:
            moves = (unit.state != before) | command_taken | beat_taken | cascade_taken | job_taken
            never_starves(m, unit.busy, moves, self.patience, "progress")
        return m


@pytest.fixture(autouse=True)
def _solver():
    for tool in ("yowasp-sby", "yices-smt2"):
        tool_or_skip(lambda tool=tool: executable(tool))


def test_only_good_jobs_are_offered_and_every_job_ends_once():
    prove(SequencerProof(), depth=18, mode=Mode.BOUNDED)


def test_patient_neighbours_never_wait_long():
    prove(SequencerProof(patience=3), depth=24, mode=Mode.BOUNDED)


def test_the_assumptions_let_jobs_end_in_every_way():
    prove(SequencerProof(), depth=24, mode=Mode.COVER)


class Hasty(Sequencer):
    """Offers every job, whatever the descriptor says."""

    def _check(self, m):
        return super()._check(m) & 0


def test_a_sequencer_that_does_not_check_is_refuted():
    with pytest.raises(ProofError):
        prove(SequencerProof(unit=Hasty), depth=16, mode=Mode.BOUNDED)
