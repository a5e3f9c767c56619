"""Each attention unit alone: fast beat times and golden payloads equal the clock-by-clock unit under random stalls."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sim.attention_strategies import arrivals, machines, patterns
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.attention_latency import (
    attention_latencies,
    beats,
    head_importance_latencies,
    token_importance_latencies,
)
from topsieve_sim.golden.dot_product import dot_products, scores
from topsieve_sim.golden.importance import add_head_importance, add_token_importance
from topsieve_sim.golden.numbers import ScoreFactor
from topsieve_sim.golden.softmax import softmax
from topsieve_sim.golden.weighted_sum import weighted_sum
from topsieve_sim.stepped.base import run_stepped
from topsieve_sim.stepped.dot_product import DotProductArray
from topsieve_sim.stepped.importance import Add, ImportanceAccumulators, Read
from topsieve_sim.stepped.softmax import ScoreBeat, SoftmaxUnit
from topsieve_sim.stepped.weighted_sum import WeightedSumArray
from topsieve_sim.timing.importance import importance_times
from topsieve_sim.timing.pipeline import pipeline_times
from topsieve_sim.timing.softmax import softmax_times
from topsieve_sim.timing.weighted_sum import weighted_sum_times

seeds = st.integers(0, 2**32 - 1)


def row_lengths(rng: np.random.Generator, config: AcceleratorConfig) -> list[int]:
    longest = rng.choice([config.softmax.lanes, config.capacity])
    return [int(n) for n in rng.integers(1, longest + 1, rng.integers(1, 12))]


def split(row: Any, lanes: int) -> list[Any]:
    return [row[i : i + lanes] for i in range(0, len(row), lanes)]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), config=machines(), ready=patterns(), seed=seeds)
def test_dot_product_array(data: st.DataObject, config: AcceleratorConfig, ready: NDArray[np.bool_], seed: int) -> None:
    rng = np.random.default_rng(seed)
    head_dim = int(rng.integers(1, config.max_head_dim + 1))
    formats, lanes = config.formats, config.softmax.lanes
    factor = ScoreFactor(np.int64(rng.integers(1, 1 << 16)), np.int64(rng.integers(0, 24)))
    limit = 1 << (formats.query_bits - 1)
    payloads, expected = [], []
    for keys in row_lengths(rng, config):
        query = rng.integers(-limit + 1, limit, (1, head_dim))
        key = rng.integers(-limit + 1, limit, (keys, head_dim))
        row = scores(dot_products(query, key, formats), factor, formats)[0].tolist()
        parts = split(key.tolist(), lanes)
        payloads += [(query[0].tolist(), part, i == len(parts) - 1) for i, part in enumerate(parts)]
        expected += [(tuple(part), i == len(parts) - 1) for i, part in enumerate(split(row, lanes))]
    arrival = data.draw(arrivals(len(payloads)))
    log = run_stepped(
        DotProductArray(config, head_dim, factor), payloads, arrival.tolist(), ready.tolist(), len(payloads)
    )
    cycles = attention_latencies(config)
    interval = config.dot_product.interval_cycles(lanes, head_dim)
    entered, left = pipeline_times(
        arrival, ready, cycles.dot_product + interval - 1, cycles.dot_product_depth, interval
    )
    assert log.outputs == expected
    assert log.input_cycles == entered.tolist()
    assert log.output_cycles == left.tolist()


@settings(max_examples=100, deadline=None)
@given(data=st.data(), config=machines(), ready=patterns(), seed=seeds, share=st.sampled_from([0.0, 0.5, 1.0]))
def test_softmax_unit(
    data: st.DataObject, config: AcceleratorConfig, ready: NDArray[np.bool_], seed: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    formats, lanes = config.formats, config.softmax.lanes
    limit = 1 << (formats.score_bits - 1)
    spread = int(rng.choice([1, 1 << formats.score_fraction_bits, limit]))
    threshold = int(rng.integers(0, (1 << formats.probability_bits) + 1))
    payloads, expected, dropped, row_beats = [], [], [], []
    for row, keys in enumerate(row_lengths(rng, config)):
        values = rng.integers(-spread, spread, keys)
        second = bool(rng.random() < share)
        probability, largest = softmax(values, formats, config.capacity)
        parts = split(values.tolist(), lanes)
        payloads += [ScoreBeat(part, row, i == len(parts) - 1, second) for i, part in enumerate(parts)]
        dropped.append(not second and int(largest) < threshold)
        row_beats.append(len(parts))
        if not dropped[-1]:
            expected += [
                (tuple(part), i == len(parts) - 1) for i, part in enumerate(split(probability.tolist(), lanes))
            ]
    arrival = data.draw(arrivals(len(payloads)))
    log = run_stepped(
        SoftmaxUnit.of(config, threshold), payloads, arrival.tolist(), ready.tolist(), len(expected), 100_000
    )
    entered, left, _ = softmax_times(
        attention_latencies(config), arrival, np.array(row_beats), np.array(dropped), ready
    )
    assert log.outputs == expected
    assert log.input_cycles == entered.tolist()
    assert log.output_cycles == left.tolist()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), config=machines(), ready=patterns(), seed=seeds)
def test_weighted_sum_array(
    data: st.DataObject, config: AcceleratorConfig, ready: NDArray[np.bool_], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    head_dim = int(rng.integers(1, config.max_head_dim + 1))
    formats, lanes = config.formats, config.softmax.lanes
    limit = 1 << (formats.value_bits - 1)
    payloads, expected, row_beats = [], [], []
    for keys in row_lengths(rng, config):
        probability = rng.integers(0, 1 << formats.probability_bits, (1, keys))
        value = rng.integers(-limit + 1, limit, (keys, head_dim))
        expected.append(tuple(weighted_sum(probability, value, formats)[0].tolist()))
        parts = list(zip(split(probability[0].tolist(), lanes), split(value.tolist(), lanes), strict=True))
        payloads += [(part, i == len(parts) - 1) for i, part in enumerate(parts)]
        row_beats.append(len(parts))
    arrival = data.draw(arrivals(len(payloads)))
    log = run_stepped(WeightedSumArray.of(config, head_dim), payloads, arrival.tolist(), ready.tolist(), len(expected))
    interval = config.weighted_sum.interval_cycles(lanes, head_dim)
    entered, left = weighted_sum_times(attention_latencies(config), interval, arrival, np.array(row_beats), ready)
    assert log.outputs == expected
    assert log.input_cycles == entered.tolist()
    assert log.output_cycles == left.tolist()


@settings(max_examples=60, deadline=None)
@given(data=st.data(), config=machines(), ready=patterns(), seed=seeds)
def test_token_importance(data: st.DataObject, config: AcceleratorConfig, ready: NDArray[np.bool_], seed: int) -> None:
    rng = np.random.default_rng(seed)
    formats, lanes = config.formats, config.softmax.lanes
    keys = int(rng.integers(1, config.capacity + 1))
    words = beats(keys, lanes)
    total = np.zeros(keys, np.int64)
    payloads: list[Add | Read] = []
    expected = []
    for _ in range(rng.integers(1, 5)):
        for _ in range(rng.integers(0, 4)):
            # Beyond a probability's range, so that the accumulators saturate within a few rows.
            probability = rng.integers(0, 1 << (formats.token_importance_bits - 1), keys)
            total = add_token_importance(total, probability, formats)
            payloads += [Add(i, tuple(part)) for i, part in enumerate(split(probability.tolist(), lanes))]
        clear = bool(rng.random() < 0.5)
        payloads.append(Read(words, clear))
        padded = total.tolist() + [0] * (words * lanes - keys)
        expected += [(tuple(part), i == words - 1) for i, part in enumerate(split(padded, lanes))]
        total = total * (not clear)
    unit = ImportanceAccumulators(token_importance_latencies(), words, lanes, formats.token_importance_bits)
    arrival = data.draw(arrivals(len(payloads)))
    log = run_stepped(unit, payloads, arrival.tolist(), ready.tolist(), len(expected))
    read_words = np.array([beat.words if isinstance(beat, Read) else 0 for beat in payloads])
    entered, left = importance_times(token_importance_latencies(), arrival, read_words, ready)
    assert log.outputs == expected
    assert log.input_cycles == entered.tolist()
    assert log.output_cycles == left.tolist()


@settings(max_examples=40, deadline=None)
@given(data=st.data(), config=machines(), ready=patterns(), seed=seeds)
def test_head_importance(data: st.DataObject, config: AcceleratorConfig, ready: NDArray[np.bool_], seed: int) -> None:
    rng = np.random.default_rng(seed)
    formats, heads = config.formats, config.importance.heads
    limit = 1 << (formats.output_bits - 1)
    output = rng.integers(-limit, limit, (heads, int(rng.integers(1, 6)), config.max_head_dim))
    total = add_head_importance(np.zeros(heads, np.int64), output, formats)
    payloads: list[Add | Read] = [Add(head, (int(np.abs(row).sum()),)) for head in range(heads) for row in output[head]]
    payloads.append(Read(heads, True))
    latencies = head_importance_latencies(config)
    unit = ImportanceAccumulators(latencies, heads, 1, formats.head_importance_bits)
    arrival = data.draw(arrivals(len(payloads)))
    log = run_stepped(unit, payloads, arrival.tolist(), ready.tolist(), heads)
    read_words = np.array([beat.words if isinstance(beat, Read) else 0 for beat in payloads])
    entered, left = importance_times(latencies, arrival, read_words, ready)
    assert log.outputs == [((int(total[head]),), head == heads - 1) for head in range(heads)]
    assert log.input_cycles == entered.tolist()
    assert log.output_cycles == left.tolist()
