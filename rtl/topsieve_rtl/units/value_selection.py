"""Local value selection as a unit: rows of probabilities in, the survivors or the thinned rows out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from amaranth.lib import wiring
from numpy.typing import NDArray

from topsieve_rtl.cosim import Case, Channel, Sink, Source
from topsieve_rtl.units.attention_cases import draw_row_lengths, draw_stalls, split_beats
from topsieve_rtl.units.topk import draw_scores
from topsieve_rtl.units.unit import Unit
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.attention import flush_cycles
from topsieve_sim.golden.attention_latency import attention_latencies
from topsieve_sim.golden.topk import SELECTOR_CODES, select_cycles, top_k
from topsieve_sim.timing.selection import selection_times

ProbabilityBeat = tuple[Sequence[int], int, int, int]


class Row(NamedTuple):
    """A row that was taken: its number, its probabilities and the ascending positions of its survivors."""

    number: int
    probability: NDArray[np.int64]
    survivors: NDArray[np.int64]

    def beats(self, lanes: int, gather: bool) -> Iterator[ProbabilityBeat]:
        """The beats that leave."""
        if gather:
            values = self.probability[self.survivors]
        else:
            values = np.zeros_like(self.probability)
            values[self.survivors] = self.probability[self.survivors]
        for part, last in split_beats(values.tolist(), lanes):
            yield tuple(part + [0] * (lanes - len(part))), len(part), last, self.number


class ValueSelectionUnit(Unit):
    """The largest probabilities of each row, gathered or in their places."""

    name = "value_selection"
    summary = (
        "Local value selection: the largest probabilities of each row, packed with their positions or in their lanes."
    )
    port_notes: ClassVar[Mapping[str, str]] = {
        "i": "probabilities; rows of 1 to `capacity`, all beats but a row's last full",
        "o": "with `gather` the survivors, packed; else all beats of the row, 0 where an element did not survive",
        "positions": "with `gather` where the survivors stood, ascending, one a beat",
        "kept": "survivors of a row, at least 1",
        "gather": "1: survivors leave packed",
        "finished": "a row's survivors are all known; its first beat can leave in the next cycle",
        "finished_row": "its number, and how many survivors it has",
    }
    latency_note = (
        "Beat times obey the recurrences load, command, taken, filtered and ready of `docs/attention-unit.md`; "
        "`topsieve_sim/timing/selection.py` computes them."
    )

    def component(self, config: AcceleratorConfig) -> wiring.Component:
        from topsieve_rtl.attention import ValueSelection

        return ValueSelection(config)

    def draw(self, config: AcceleratorConfig, generator: np.random.Generator) -> Case:
        lanes, largest = config.softmax.lanes, 1 << config.formats.probability_bits
        kept = int(generator.choice([1, lanes, config.capacity, *generator.integers(1, config.capacity + 1, 5)]))
        kept = min(kept, config.capacity)
        gather = int(generator.integers(2))
        beats: list[ProbabilityBeat] = []
        for number, keys in enumerate(draw_row_lengths(config, generator)):
            for part, last in split_beats(draw_scores(keys, largest, generator), lanes):
                beats.append((tuple(part + [0] * (lanes - len(part))), len(part), last, number))
        arrivals, ready = draw_stalls(generator, len(beats), 400)
        _, position_ready = draw_stalls(generator, 0, 400)
        rows = list(rows_of(beats, kept))
        return Case(
            {"i": Source(beats, arrivals)},
            {
                "o": Sink(sum(len(list(row.beats(lanes, bool(gather)))) for row in rows), ready),
                "positions": Sink(sum(row.survivors.size for row in rows) * gather, position_ready),
            },
            {"kept": kept, "gather": gather},
        )

    def expect(self, config: AcceleratorConfig, case: Case) -> Mapping[str, Channel]:
        source, kept, gather = case.sources["i"], case.constants["kept"], bool(case.constants["gather"])
        rows = list(rows_of(source.beats, kept))
        entered, left, read, _ = row_times(config, case, rows)
        positions = [
            (int(position), int(n + 1 == row.survivors.size))
            for row in rows
            for n, position in enumerate(row.survivors)
        ]
        return {
            "i": Channel(entered.tolist(), list(source.beats)),
            "o": Channel(left.tolist(), [beat for row in rows for beat in row.beats(config.softmax.lanes, gather)]),
            "positions": Channel(read.tolist(), positions if gather else []),
        }


def rows_of(beats: Sequence[Any], kept: int) -> Iterator[Row]:
    """The rows that `beats` are."""
    row: list[int] = []
    for lanes, count, last, number in beats:
        row += lanes[:count]
        if last:
            probability = np.array(row, np.int64)
            yield Row(number, probability, top_k(probability, kept))
            row = []


def row_times(config: AcceleratorConfig, case: Case, rows: Sequence[Row]) -> tuple[NDArray[np.int64], ...]:
    """`selection_times` of a case."""
    topk, kept = config.topk, case.constants["kept"]
    selector, bits = SELECTOR_CODES[topk.selector.value], config.formats.probability_bits
    selecting = [
        select_cycles(row.probability, kept, selector, topk.parallelism, bits, topk.seed, topk.radix_bits)[0]
        for row in rows
    ]
    row_keys = np.array([row.probability.size for row in rows], np.int64)
    return selection_times(
        attention_latencies(config),
        np.asarray(case.sources["i"].arrival_cycles, np.int64),
        row_keys,
        kept,
        bool(case.constants["gather"]),
        np.array(selecting, np.int64),
        flush_cycles(np.concatenate([row.probability for row in rows]), row_keys, kept, topk.parallelism),
        np.asarray(case.sinks["o"].ready_pattern, np.bool_),
        np.asarray(case.sinks["positions"].ready_pattern, np.bool_),
    )
