"""The softmax unit as a unit: rows of scores in, rows of probabilities out unless they want a second pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from amaranth.lib import wiring
from numpy.typing import NDArray

from topsieve_rtl.cosim import Case, Channel
from topsieve_rtl.units.attention_cases import channels, draw_row_lengths, draw_stalls, split_beats, stall_arrays
from topsieve_rtl.units.unit import Unit
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.attention_latency import attention_latencies
from topsieve_sim.golden.progressive import needs_lsb
from topsieve_sim.golden.softmax import softmax
from topsieve_sim.timing.softmax import softmax_times

ScoreRow = list[tuple[tuple[int, ...], int, int, int, int]]


class SoftmaxUnit(Unit):
    """Scores to probabilities with the progressive decision."""

    name = "softmax"
    summary = "Softmax: probabilities of a row of scores, and whether its largest is below the threshold."
    port_notes: ClassVar[Mapping[str, str]] = {
        "i": "scores in log2 units; rows of 1 to `capacity` scores, all beats but a row's last full",
        "o": "probabilities of the rows that are not dropped; lanes at and beyond `count` are 0",
        "threshold": "in probability steps; 0 drops nothing",
        "decided": "a row was decided in the cycle before",
        "decision": "its number, and whether it was dropped",
    }
    latency_note = "Beat times obey the recurrences f, e, decided, n and p of `docs/attention-unit.md`."

    def component(self, config: AcceleratorConfig) -> wiring.Component:
        from topsieve_rtl.attention import Softmax

        return Softmax(config)

    def draw(self, config: AcceleratorConfig, generator: np.random.Generator) -> Case:
        formats, lanes = config.formats, config.softmax.lanes
        threshold = int(generator.choice([0, 1 << formats.probability_bits, *_thresholds(config, generator)]))
        lowest = -(1 << (formats.score_bits - 1))
        beats = []
        for row, keys in enumerate(draw_row_lengths(config, generator)):
            second_pass = int(generator.random() < 0.3)
            for part, last in split_beats(draw_scores(config, keys, generator), lanes):
                # What stands in a lane that does not count must not matter.
                junk = generator.integers(lowest, -lowest, lanes - len(part)).tolist()
                beats.append((tuple(part + junk), len(part), last, row, second_pass))
        arrivals, ready = draw_stalls(generator, len(beats), 400)
        expected = sum(len(beats) for beats, _, dropped in _outcomes(config, beats, threshold) if not dropped)
        return Case.through(beats, arrivals, ready, expected, constants={"threshold": threshold})

    def expect(self, config: AcceleratorConfig, case: Case) -> Mapping[str, Channel]:
        rows = list(_outcomes(config, case.sources["i"].beats, case.constants["threshold"]))
        outputs = []
        for beats, probability, dropped in rows:
            if not dropped:
                parts = split_beats(probability, config.softmax.lanes)
                for (_, count, last, row, _), (part, _) in zip(beats, parts, strict=True):
                    outputs.append((tuple(part + [0] * (config.softmax.lanes - len(part))), count, last, row))
        arrival, ready = stall_arrays(case)
        entered, left, _ = softmax_times(
            attention_latencies(config),
            arrival,
            np.array([len(beats) for beats, _, _ in rows], np.int64),
            np.array([dropped for _, _, dropped in rows], np.bool_),
            ready,
        )
        return channels(case, entered, left, outputs)


def draw_scores(config: AcceleratorConfig, keys: int, generator: np.random.Generator) -> list[int]:
    """Uniform, narrow, all equal, one huge, all at an end of the range, or ascending."""
    limit = 1 << (config.formats.score_bits - 1)
    kind = int(generator.integers(6))
    if kind == 0:
        values = generator.integers(-limit, limit, keys)
    elif kind == 1:
        values = generator.integers(-limit, limit) + generator.integers(-20, 20, keys)
    elif kind == 2:
        values = np.full(keys, generator.choice([-limit, limit - 1, generator.integers(-limit, limit)]))
    elif kind == 3:
        values = np.full(keys, generator.integers(-limit, 0))
        values[generator.integers(keys)] = limit - 1
    elif kind == 4:
        values = generator.choice([-limit, limit - 1], keys)
    else:
        values = np.sort(generator.normal(0, 2 << config.formats.score_fraction_bits, keys).astype(np.int64))
    return [int(value) for value in np.clip(values, -limit, limit - 1)]


def _thresholds(config: AcceleratorConfig, generator: np.random.Generator) -> list[int]:
    """Largest probabilities of drawn rows, and one beside them: where a comparison goes wrong first."""
    found = []
    for _ in range(4):
        scores = draw_scores(config, int(generator.integers(1, config.capacity + 1)), generator)
        _, largest = softmax(np.array(scores, np.int64), config.formats, config.capacity)
        found.append(int(largest) + int(generator.integers(2)))
    return found


def _outcomes(
    config: AcceleratorConfig, beats: Sequence[Any], threshold: int
) -> Iterator[tuple[ScoreRow, list[int], bool]]:
    """Beats of each row, its probabilities, and whether it is dropped."""
    row: ScoreRow = []
    for beat in beats:
        row.append(beat)
        if beat[2]:
            values: NDArray[np.int64] = np.array([s for lanes, count, *_ in row for s in lanes[:count]], np.int64)
            probability, largest = softmax(values, config.formats, config.capacity)
            dropped = bool(needs_lsb(largest, threshold)) and not beat[4]
            yield row, probability.tolist(), dropped
            row = []
