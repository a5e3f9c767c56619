"""The weighted-sum array as a unit: probabilities and values of a beat in, output rows out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from amaranth.lib import wiring

from topsieve_rtl.cosim import Case, Channel
from topsieve_rtl.units.attention_cases import (
    channels,
    draw_row_lengths,
    draw_signed,
    draw_stalls,
    draw_unsigned,
    split_beats,
    stall_arrays,
)
from topsieve_rtl.units.unit import Unit
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.attention_latency import attention_latencies
from topsieve_sim.golden.weighted_sum import weighted_sum
from topsieve_sim.timing.weighted_sum import weighted_sum_times


class WeightedSumUnit(Unit):
    """An output row from the beats of a row."""

    name = "weighted_sum"
    summary = "Weighted-sum array: exact sums of probability x value over a row, narrowed to the output."
    port_notes: ClassVar[Mapping[str, str]] = {
        "i": "a probability and a value row a lane; all beats but a row's last full",
        "o": "output rows; elements beyond the head dimension are 0",
        "words": "operand words of a beat: ceil(lanes x padded head dimensions / multipliers)",
    }
    latency_note = (
        "4 + levels(min(lanes, segments)) + words - 1 cycles from a row's last beat, one beat every `words` cycles, "
        "with levels(n) = ceil(log2(n)) and segments = multipliers / lane_split; two rows wait at the output."
    )

    def component(self, config: AcceleratorConfig) -> wiring.Component:
        from topsieve_rtl.attention import WeightedSumOnOperands

        return WeightedSumOnOperands(config)

    def draw(self, config: AcceleratorConfig, generator: np.random.Generator) -> Case:
        formats, lanes, widest = config.formats, config.softmax.lanes, config.max_head_dim
        head_dim = int(generator.choice([widest, generator.integers(1, widest + 1)]))
        beats = []
        lengths = draw_row_lengths(config, generator)
        for row, keys in enumerate(lengths):
            for part, last in split_beats(range(keys), lanes):
                value = np.zeros((lanes, widest), np.int64)
                value[:, :head_dim] = draw_signed(generator, formats.value_bits, (lanes, head_dim))
                probability = draw_unsigned(generator, formats.probability_bits, lanes)
                beats.append((value.tolist(), (probability.tolist(), len(part), last, row)))
        arrivals, ready = draw_stalls(generator, len(beats), 400)
        words = config.weighted_sum.interval_cycles(lanes, head_dim)
        return Case.through(beats, arrivals, ready, len(lengths), constants={"words": words})

    def expect(self, config: AcceleratorConfig, case: Case) -> Mapping[str, Channel]:
        outputs, row_beats = [], []
        probabilities: list[int] = []
        values: list[list[int]] = []
        beats = 0
        for value, (probability, count, last, row) in case.sources["i"].beats:
            beats += 1
            probabilities += probability[:count]
            values += value[:count]
            if last:
                total = weighted_sum(np.array([probabilities]), np.array(values), config.formats)[0]
                outputs.append((tuple(total.tolist()), row))
                row_beats.append(beats)
                probabilities, values, beats = [], [], 0
        arrival, ready = stall_arrays(case)
        entered, left = weighted_sum_times(
            attention_latencies(config), case.constants["words"], arrival, np.array(row_beats, np.int64), ready
        )
        return channels(case, entered, left, outputs)
