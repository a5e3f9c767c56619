"""The dot-product array as a unit: operands of a beat in, scores out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from amaranth.lib import wiring

from topsieve_rtl.cosim import Case, Channel
from topsieve_rtl.cosim.design import View
from topsieve_rtl.units.attention_cases import (
    channels,
    draw_row_lengths,
    draw_signed,
    draw_stalls,
    split_beats,
    stall_arrays,
)
from topsieve_rtl.units.unit import Unit
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.attention_latency import attention_latencies
from topsieve_sim.golden.dot_product import dot_products, scores
from topsieve_sim.golden.numbers import SCORE_MULTIPLIER_BITS, ScoreFactor
from topsieve_sim.timing.pipeline import pipeline_times

# Beyond it every score is 0 or -1 whatever the operands.
_LARGEST_SHIFT = 48


class DotProductUnit(Unit):
    """One beat of scores from a query and its keys."""

    name = "dot_product"
    summary = "Dot-product array: exact sums of query x key, narrowed to scores in log2 units, with a bias a lane."
    port_notes: ClassVar[Mapping[str, str]] = {
        "i": "a query, a key and a bias a lane; elements beyond the head dimension are 0; the score factor: a product is "
        "multiplied by `multiplier`, unsigned, and shifted right by `shift`, half up",
        "o": "scores; lanes at and beyond `count` hold anything",
        "words": "operand words of a beat: ceil(lanes x padded head dimensions / multipliers)",
    }
    latency_note = (
        "6 + levels(lane_split) + levels(segments / lanes) + words - 1 cycles, one beat every `words` cycles, "
        "with levels(n) = ceil(log2(n)) and segments = multipliers / lane_split."
    )

    def component(self, config: AcceleratorConfig) -> wiring.Component:
        from topsieve_rtl.attention import DotProductOnOperands

        return DotProductOnOperands(config)

    def draw(self, config: AcceleratorConfig, generator: np.random.Generator) -> Case:
        formats, lanes, widest = config.formats, config.softmax.lanes, config.max_head_dim
        head_dim = int(generator.choice([widest, generator.integers(1, widest + 1)]))
        beats = []
        for row, keys in enumerate(draw_row_lengths(config, generator)):
            query = _padded(draw_signed(generator, formats.query_bits, head_dim), widest)
            second_pass = int(generator.integers(2))
            factor = (
                int(generator.integers(0, 1 << SCORE_MULTIPLIER_BITS)),
                int(generator.integers(0, _LARGEST_SHIFT)),
            )
            for part, last in split_beats(range(keys), lanes):
                key = _padded(draw_signed(generator, formats.key_bits, (lanes, head_dim)), widest)
                bias = draw_signed(generator, formats.score_bits, lanes) * int(generator.integers(2))
                tags = (bias.tolist(), len(part), last, row, second_pass)
                beats.append((query.tolist(), key.tolist(), tags, *factor))
        arrivals, ready = draw_stalls(generator, len(beats), 400)
        constants = {"words": config.dot_product.interval_cycles(lanes, head_dim)}
        return Case.through(beats, arrivals, ready, len(beats), constants=constants)

    def expect(self, config: AcceleratorConfig, case: Case) -> Mapping[str, Channel]:
        outputs = []
        for query, keys, (bias, count, last, row, second_pass), multiplier, shift in case.sources["i"].beats:
            factor = ScoreFactor(np.int64(multiplier), np.int64(shift))
            sums = dot_products(np.array([query]), np.array(keys), config.formats)
            exact = scores(sums, factor, config.formats, np.array(bias))[0]
            lanes = tuple(int(s) if lane < count else None for lane, s in enumerate(exact))
            outputs.append((lanes, count, last, row, second_pass))
        cycles, words = attention_latencies(config), case.constants["words"]
        entered, left = pipeline_times(
            *stall_arrays(case), cycles.dot_product + words - 1, cycles.dot_product_depth, words
        )
        return channels(case, entered, left, outputs)

    def views(self, config: AcceleratorConfig) -> Mapping[str, View]:
        return {"o": only_counted_lanes}


def only_counted_lanes(beat: tuple[tuple[int, ...], int, int, int, int]) -> tuple[object, ...]:
    """A score beat with None in the lanes that may hold anything."""
    lanes, count, *rest = beat
    return (tuple(lane if place < count else None for place, lane in enumerate(lanes)), count, *rest)


def _padded(values: np.ndarray, width: int) -> np.ndarray:
    """Zeros beyond the head dimension."""
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, width - values.shape[-1])])
