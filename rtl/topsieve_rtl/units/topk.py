"""The top-k engine as a unit: packets of scores in, the k largest with their indices out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from amaranth.lib import wiring
from numpy.typing import NDArray

from topsieve_rtl.cosim import Case, Channel
from topsieve_rtl.units.unit import Unit
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.topk import SELECTOR_CODES, PacketStatus, packet_status, top_k
from topsieve_sim.timing.topk import TopKTimes, packet_rows, row_survivors, select_cycles, topk_times

LoadBeat = tuple[tuple[int, ...], int, int, int]


class _Packet(NamedTuple):
    """A packet as the models take it: `scores` and `k` are empty and 0 for a refused one."""

    beats: int
    scores: NDArray[np.int64]
    k: int
    status: PacketStatus


class TopKUnit(Unit):
    """Local-value engine of a configuration: scores are probabilities."""

    name = "topk"
    serves_successor = True
    summary = "Top-k engine: keeps the k largest scores of a packet; the lowest index wins ties, survivors ascend."
    port_notes: ClassVar[Mapping[str, str]] = {
        "i": "scores; `k`, how many to keep, is read with the last beat",
        "o": "survivors with their indices, ascending; `status` of the last beat: 0 kept, 1 over capacity, "
        "2 k over capacity, 3 ragged (a beat before the last was not full)",
    }
    latency_note = (
        "With R = ceil(n / P) rows of P lanes, N = ceil(score bits / radix bits), L = log2(P) and no stalls: a packet loads "
        "in one cycle a beat; the selector starts 2 cycles after the last beat and takes 4 + (N - 1)(R + 4) cycles "
        "(`radix`, P <= 16), or for `quick` the sum over its rounds of (rows of the partition + 4, and waits for rows "
        "still being compacted), which depends on the scores; the filter passes R rows, and its first full beat leaves "
        "4 + 4 ceil(L / 2) + 1 cycles after the row that completes it. Load, selection and filter of neighbouring packets overlap. `docs/topk-engine.md` has the "
        "recurrences under stalls, `topsieve_sim/timing/topk.py` computes them."
    )

    def component(self, config: AcceleratorConfig) -> wiring.Component:
        from topsieve_rtl.topk import TopKEngine

        return TopKEngine.of(config)

    def draw(self, config: AcceleratorConfig, generator: np.random.Generator) -> Case:
        beats: list[LoadBeat] = []
        expected = 0
        for _ in range(int(generator.integers(1, 4))):
            packet = list(_draw_packet(config, generator))
            beats += packet
            (read,) = _packets(config, packet)
            expected += _output_beats(config, read)
        # From a source that never pauses to one that mostly does; likewise the sink.
        pause = int(generator.choice([1, 2, 6]))
        arrivals = np.cumsum(generator.integers(0, pause, len(beats))).tolist()
        ready = (generator.random(4 * len(beats) + 60) < generator.choice([0.2, 0.7, 1.0])).tolist()
        return Case.through(beats, arrivals, ready, expected)

    def expect(self, config: AcceleratorConfig, case: Case) -> Mapping[str, Channel]:
        source = case.sources["i"]
        inputs = engine_inputs(config, case)
        times = engine_times(config, inputs)
        beats = [beat for packet in inputs.packets for beat in _survivor_beats(packet, config.topk.parallelism)]
        return {
            "i": Channel(times.accepted.tolist(), list(source.beats)),
            "o": Channel(times.left.tolist(), beats),
        }


@dataclass(frozen=True)
class EngineInputs:
    """A case as the timing functions take it: packets, when their beats arrive, when the sink is ready."""

    packets: tuple[_Packet, ...]
    arrival: NDArray[np.int64]
    packet_beats: NDArray[np.int64]
    rows: NDArray[np.int64]
    ready: NDArray[np.bool_]


def engine_inputs(config: AcceleratorConfig, case: Case) -> EngineInputs:
    """The packets and stalls of `case` as arrays."""
    source = case.sources["i"]
    packets = tuple(_packets(config, source.beats))
    return EngineInputs(
        packets,
        np.asarray(source.arrival_cycles, np.int64),
        np.array([packet.beats for packet in packets], np.int64),
        np.array([packet_rows(packet.scores.size, config.topk.parallelism) for packet in packets], np.int64),
        np.asarray(case.sinks["o"].ready_pattern, np.bool_),
    )


def engine_times(config: AcceleratorConfig, inputs: EngineInputs) -> TopKTimes:
    """Cycle of every event of the engine of `config` on `inputs`."""
    lanes = config.topk.parallelism
    selector = SELECTOR_CODES[config.topk.selector.value]
    selecting, survivors = [], []
    for packet in inputs.packets:
        cycles, kth, quota, _ = select_cycles(
            packet.scores, packet.k, selector, lanes, _score_bits(config), config.topk.seed, config.topk.radix_bits
        )
        selecting.append(cycles)
        survivors.append(row_survivors(packet.scores, kth, quota, lanes))
    return topk_times(
        inputs.arrival,
        inputs.packet_beats,
        inputs.rows,
        np.array(selecting, np.int64),
        np.concatenate(survivors) if survivors else np.zeros(0, np.int64),
        inputs.ready,
        lanes,
        2 if config.double_buffer else 1,
    )


def _score_bits(config: AcceleratorConfig) -> int:
    return config.formats.probability_bits


def _load_lanes(config: AcceleratorConfig) -> int:
    return config.topk.parallelism


def _draw_packet(config: AcceleratorConfig, generator: np.random.Generator) -> Iterator[LoadBeat]:
    """Load beats of a packet; one in eight is refused: too long, ragged, or asking for too many."""
    lanes, capacity = _load_lanes(config), config.capacity
    fault = PacketStatus(int(generator.choice(4))) if generator.random() < 1 / 8 else PacketStatus.OK
    n = int(generator.choice([0, 1, lanes, capacity, *generator.integers(0, capacity + 1, 8)]))
    if fault is PacketStatus.OVER_CAPACITY:
        n = capacity + int(generator.integers(1, lanes + 1))
    k = int(generator.choice([0, 1, n, min(n + 1, capacity), *generator.integers(0, capacity + 1, 8)]))
    if fault is PacketStatus.K_OUT_OF_RANGE:
        k = capacity + 1
    scores = draw_scores(n, 1 << _score_bits(config), generator)
    ragged_at = int(generator.integers(0, max(1, n // lanes))) if fault is PacketStatus.RAGGED else -1
    beats = max(1, -(-n // lanes))
    for beat in range(beats):
        row = scores[beat * lanes : (beat + 1) * lanes]
        count = len(row)
        if beat == ragged_at and beat + 1 < beats:
            count = int(generator.integers(0, lanes))
        junk = generator.integers(0, 1 << _score_bits(config), lanes - len(row)).tolist()
        yield tuple(row + junk), count, int(beat + 1 == beats), k


def draw_scores(n: int, limit: int, generator: np.random.Generator) -> list[int]:
    """Uniform, few distinct values, all equal, ascending, descending, or the long tail of a softmax."""
    kind = int(generator.integers(6))
    if kind == 0:
        values = generator.integers(0, limit, n)
    elif kind == 1:
        values = generator.choice(generator.integers(0, limit, 3), n)
    elif kind == 2:
        values = np.full(n, generator.integers(0, limit))
    elif kind == 5:
        weights = np.exp(3 * generator.standard_normal(n))
        values = np.floor(weights / max(weights.sum(), 1) * (limit - 1)).astype(np.int64)
    else:
        values = np.sort(generator.integers(0, limit, n))[:: 1 if kind == 3 else -1]
    return [int(value) for value in values]


def _packets(config: AcceleratorConfig, beats: Sequence[LoadBeat]) -> Iterator[_Packet]:
    lanes = _load_lanes(config)
    counts: list[int] = []
    scores: list[int] = []
    for row, count, last, k in beats:
        counts.append(count)
        scores += row[: min(count, lanes)]
        if last:
            status = packet_status(counts, k, config.capacity, lanes)
            kept = np.array(scores if status is PacketStatus.OK else [], np.int64)
            yield _Packet(len(counts), kept, min(k, kept.size), status)
            counts, scores = [], []


def _output_beats(config: AcceleratorConfig, packet: _Packet) -> int:
    return packet_rows(packet.k, config.topk.parallelism)


def _survivor_beats(packet: _Packet, lanes: int) -> Iterator[tuple[tuple[tuple[int, int], ...], int, int, int]]:
    kept = [(int(packet.scores[index]), int(index)) for index in top_k(packet.scores, packet.k)]
    beats = packet_rows(len(kept), lanes)
    for beat in range(beats):
        row = kept[beat * lanes : (beat + 1) * lanes]
        last = beat + 1 == beats
        yield tuple(row + [(0, 0)] * (lanes - len(row))), len(row), int(last), int(packet.status) if last else 0
