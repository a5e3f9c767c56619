# amaranth: UnusedElaboratable=no
"""The attention units against their clock-by-clock references, directly; decisions of the softmax at their cycle."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import Out

from rtl.harness.attention_machines import draw_machine
from topsieve_rtl.attention import Decision, Softmax
from topsieve_rtl.attention.layouts import ROW_BITS
from topsieve_rtl.cosim import Case, Design, Sink, run
from topsieve_rtl.stream import Fifo
from topsieve_rtl.units import find_unit
from topsieve_sim.arch import load_config
from topsieve_sim.golden.attention_latency import head_importance_latencies, token_importance_latencies
from topsieve_sim.golden.numbers import ScoreFactor
from topsieve_sim.stepped.base import run_stepped
from topsieve_sim.stepped.dot_product import DotProductArray
from topsieve_sim.stepped.importance import Add, ImportanceAccumulators, Read
from topsieve_sim.stepped.softmax import ScoreBeat, SoftmaxUnit
from topsieve_sim.stepped.weighted_sum import WeightedSumArray

TINY = load_config("tiny")


def stepped_unit(name, machine, case):
    """The reference with the case's beats in its terms, and its output beats in those of the RTL."""
    beats, constants = case.sources["i"].beats, case.constants
    if name == "dot_product":
        factor = ScoreFactor(np.int64(beats[0][3]), np.int64(beats[0][4]))
        unit = DotProductArray(machine, head_dim(machine.dot_product, machine, constants["words"]), factor)
        inputs = [(query, keys[:count], last) for query, keys, (_, count, last, *_), *_ in beats]
        return unit, inputs, lambda beat: beat[0]
    if name == "softmax":
        unit = SoftmaxUnit.of(machine, constants["threshold"])
        inputs = [ScoreBeat(lanes[:count], row, bool(last), bool(second)) for lanes, count, last, row, second in beats]
        return unit, inputs, lambda beat: beat[0]
    if name == "weighted_sum":
        unit = WeightedSumArray.of(machine, head_dim(machine.weighted_sum, machine, constants["words"]))
        inputs = [((probability[:count], value[:count]), last) for value, (probability, count, last, _) in beats]
        return unit, inputs, lambda beat: beat
    lanes = machine.softmax.lanes if name == "token_importance" else 1
    bits = getattr(machine.formats, f"{name}_bits")
    latencies = token_importance_latencies() if lanes == machine.softmax.lanes else head_importance_latencies(machine)
    words = find_unit(name).shape(machine)[0]
    inputs = [
        Read(word + 1, bool(clear))
        if read
        else Add(word, tuple(operands) if name == "token_importance" else (sum(map(abs, operands)),))
        for operands, word, read, clear in beats
    ]
    return ImportanceAccumulators(latencies, words, lanes, bits), inputs, lambda beat: beat[0]


def head_dim(array, machine, words):
    """A head dimension whose beats take `words` cycles."""
    return next(
        n for n in range(1, machine.max_head_dim + 1) if array.interval_cycles(machine.softmax.lanes, n) == words
    )


@pytest.mark.parametrize("name", ["dot_product", "softmax", "weighted_sum", "token_importance", "head_importance"])
def test_every_beat_equals_the_stepped_model(name):
    unit = find_unit(name)
    for seed in (11, 12):
        machine = draw_machine(seed) if seed > 11 else TINY
        cases = [unit.draw(machine, np.random.default_rng([seed, n])) for n in range(3)]
        if name == "dot_product":
            # The reference adds no bias and has one score factor.
            cases = [plain_scores(case) for case in cases]
        for case, log in zip(cases, run(unit.design(machine), cases), strict=True):
            reference, inputs, seen = stepped_unit(name, machine, case)
            source, sink = case.sources["i"], case.sinks["o"]
            expected = run_stepped(reference, inputs, source.arrival_cycles, sink.ready_pattern, sink.expected)
            assert log.channels["i"].cycles == expected.input_cycles
            assert log.channels["o"].cycles == expected.output_cycles
            for ours, theirs in zip(log.channels["o"].beats, expected.outputs, strict=True):
                values = seen(theirs)
                assert tuple(ours[0][: len(values)]) == tuple(values)


def plain_scores(case: Case) -> Case:
    factor = case.sources["i"].beats[0][3:]
    beats = [
        (query, keys, ([0] * len(bias), *tags), *factor) for query, keys, (bias, *tags), *_ in case.sources["i"].beats
    ]
    source, sink = case.sources["i"], case.sinks["o"]
    return Case.through(beats, source.arrival_cycles, sink.ready_pattern, sink.expected, constants=case.constants)


class DecisionBench(wiring.Component):
    """The softmax with its decisions as a stream, so that their cycles are recorded."""

    def __init__(self, config) -> None:
        self.softmax = Softmax(config)
        members = dict(self.softmax.signature.members)
        del members["decided"], members["decision"]
        super().__init__(members | {"decisions": Out(stream.Signature(Decision(ROW_BITS)))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.softmax = softmax = self.softmax
        m.submodules.fifo = fifo = Fifo(Decision(ROW_BITS), 64)
        wiring.connect(m, wiring.flipped(self.i), softmax.i)
        wiring.connect(m, softmax.o, wiring.flipped(self.o))
        wiring.connect(m, fifo.o, wiring.flipped(self.decisions))
        m.d.comb += [
            softmax.threshold.eq(self.threshold),
            fifo.i.valid.eq(softmax.decided),
            fifo.i.payload.eq(softmax.decision),
        ]
        return m


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_decisions_are_seen_at_their_cycle(seed):
    """The tap speaks in the first cycle in which *normalise* may start; a FIFO shows it one cycle later."""
    unit = find_unit("softmax")
    case = unit.draw(TINY, np.random.default_rng([77, seed]))
    rows = [beat[3] for beat in case.sources["i"].beats if beat[2]]
    case = Case(case.sources, {**case.sinks, "decisions": Sink(len(rows))}, case.constants)
    (log,) = run(Design(DecisionBench(TINY), "bench"), [case])
    source, sink = case.sources["i"], case.sinks["o"]
    reference, inputs, _ = stepped_unit("softmax", TINY, case)
    cycles = []

    class Watched(type(reference)):
        def tick(self, taken, sent):
            known = len(self.decisions)
            super().tick(taken, sent)
            self.clock = getattr(self, "clock", -1) + 1
            cycles.extend([self.clock + 1] * (len(self.decisions) - known))

    reference.__class__ = Watched
    run_stepped(reference, inputs, source.arrival_cycles, sink.ready_pattern, sink.expected)
    decided = log.channels["decisions"]
    assert [cycle - 1 for cycle in decided.cycles][: len(cycles)] == cycles
    assert [(row, bool(dropped)) for row, dropped in decided.beats][: len(cycles)] == reference.decisions
    assert [row for row, _ in decided.beats] == rows
