# amaranth: UnusedElaboratable=no
"""The smallest `Unit`: an affine credit pipeline, so that emitter and verification are tested on something obvious."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from rtl.harness.datapaths import Affine, affine
from topsieve_rtl.cosim import Case, Channel
from topsieve_rtl.stream import CreditPipeline
from topsieve_rtl.units import Unit
from topsieve_sim.timing.pipeline import pipeline_times

BITS = 12
STAGES = 2


class PipelineUnit(Unit):
    name = "affine"
    summary = "o = 3 i + 1 modulo 4096, three cycles later."
    port_notes: ClassVar = {"i": "the number", "o": "three times the number plus one"}
    latency_note = "3 cycles, one beat per cycle."

    def __init__(self, *, function=lambda beat: affine(beat, BITS), latency_cycles: int = STAGES + 1) -> None:
        self.function = function
        self.latency_cycles = latency_cycles

    def component(self, config):
        return CreditPipeline(Affine(BITS, STAGES), depth=config.softmax.lanes + 2)

    def draw(self, config, generator):
        beats = generator.integers(0, 1 << BITS, generator.integers(0, 30)).tolist()
        arrivals = np.cumsum(generator.integers(0, 3, len(beats))).tolist()
        ready = (generator.random(50) < generator.random()).tolist()
        return Case.through(beats, arrivals, ready, len(beats))

    def expect(self, config, case):
        source, sink = case.sources["i"], case.sinks["o"]
        entered, left = pipeline_times(
            np.asarray(source.arrival_cycles, np.int64),
            np.asarray(sink.ready_pattern, np.bool_),
            self.latency_cycles,
            config.softmax.lanes + 2,
            1,
        )
        beats = list(source.beats)
        return {
            "i": Channel(entered.tolist(), beats),
            "o": Channel(left.tolist(), [self.function(beat) for beat in beats]),
        }
