"""Operations outside attention: throughputs as stated, bounds by arithmetic and bandwidth, host work."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.attention_strategies import machines
from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.engine import simulate
from topsieve_sim.engine.selection import quantised_scores, selections
from topsieve_sim.engine.singles import single_cost
from topsieve_sim.errors import InputError
from topsieve_sim.golden.attention import flush_cycles
from topsieve_sim.golden.topk import top_k
from topsieve_sim.report import Traffic, Unit
from topsieve_sim.timing.topk import packet_rows, topk_times
from topsieve_sim.trace import Op, TopKScope, Trace
from topsieve_sim.trace.ops import (
    ArgmaxRow,
    FeedForward,
    Gather,
    GreedyMaxMin,
    Merge,
    Norm,
    Pool1d,
    Projection,
    Search,
    Similarity,
    Threshold,
    TopK,
)

SPATTEN = load_config("spatten")


def only(op: Op, config: AcceleratorConfig = SPATTEN) -> dict[str, int]:
    """Cycles of `op` alone and of the units it keeps busy."""
    report = simulate(Trace((op,)), config)
    return {"cycles": report.cycles} | {row.unit.value: row.busy_cycles for row in report.units if row.busy_cycles}


@pytest.mark.parametrize(
    ("op", "unit", "busy"),
    [
        # 512 multipliers, 8 score lanes: 8 rows of 64 elements a cycle; 384 elements take 6 cycles a beat.
        (Similarity(layer=0, rows_a=10, rows_b=16, width=64), "dot_product", 10 * 2),
        (Similarity(layer=0, rows_a=10, rows_b=16, width=384), "dot_product", 10 * 2 * 6),
        (Norm(layer=0, rows=20, width=64), "dot_product", 3),
        (Merge(layer=0, sources=30, targets=10, width=384), "weighted_sum", 10 * 6),
        (Merge(layer=0, sources=90, targets=10, width=64), "weighted_sum", 10 * 2),
        # 16 comparators in the second top-k engine.
        (Threshold(layer=0, n=100, kept=10), "cascade_topk", 7),
        (ArgmaxRow(layer=0, rows=5, cols=100), "cascade_topk", 5 * 7),
        (GreedyMaxMin(layer=0, n=100, k=9), "cascade_topk", 9 * 7),
        (Pool1d(layer=0, n=100, window=5), "cascade_topk", 5 * 7),
        (Search(layer=0, n=100, samples=3), "cascade_topk", 7 + 3 * 7),
    ],
)
def test_stated_throughput(op: Op, unit: str, busy: int) -> None:
    found = only(op)
    assert found[unit] == busy
    assert found["cycles"] >= busy


def test_gather_is_memory_only_where_the_hidden_states_are_the_machines() -> None:
    whole = load_config("spatten", ["fully_connected=true"])
    found = only(Gather(layer=0, rows=100, width=64, bits=8), whole)
    assert found == {"cycles": 50 + 13 + 1, "memory": 13}  # 6400 bytes at 512 a cycle
    assert only(Gather(layer=0, rows=100, width=64, bits=8)) == {"cycles": 0}
    report = simulate(Trace((Gather(layer=0, rows=3, width=5, bits=3),)), whole)
    assert report.dram_bytes[Traffic.VECTOR_READ] == report.dram_bytes[Traffic.VECTOR_WRITE] == 3 * 2


def test_similarity_rereads_a_where_b_does_not_fit() -> None:
    """1024 x 64 elements fit the key buffer: twice as many rows of b read the rows of a twice."""
    fits = single_cost(Similarity(layer=0, rows_a=10, rows_b=1024, width=64), SPATTEN)
    double = single_cost(Similarity(layer=0, rows_a=10, rows_b=2048, width=64), SPATTEN)
    assert fits.traffic[Traffic.VECTOR_READ] == (1024 + 10) * 96
    assert double.traffic[Traffic.VECTOR_READ] == (2048 + 20) * 96


def test_linear_maps_stay_with_the_host_unless_the_machine_runs_them() -> None:
    trace = Trace(
        (
            Projection(layer=0, tokens=1, inputs=1024, outputs=3072, role="qkv"),
            FeedForward(layer=0, tokens=1, width=1024, hidden=4096),
        )
    )
    host = simulate(trace, SPATTEN)
    assert (host.cycles, host.dram_bytes_total, host.energy_total_pj) == (0, 0, 0.0)
    assert {row.where for row in host.operations} == {"host"}
    assert host.macs == (3 + 8) * 1024**2
    assert any("on the host" in note for note in host.notes)
    arrays = simulate(trace, SPATTEN.model_copy(update={"fully_connected": True}))
    assert arrays.dram_bytes[Traffic.WEIGHT] == host.macs  # 8 bits a weight, each used once
    # One token uses each weight once, so 512 bytes a cycle bound the run; inputs are read again for each part of the
    # weights that the buffers hold.
    assert arrays.dram_bytes[Traffic.VECTOR_READ] == 1536 * (24 + 32) + 6144 * 32
    words = (arrays.dram_bytes[Traffic.WEIGHT] + arrays.dram_bytes[Traffic.VECTOR_READ]) / 512
    assert words <= arrays.cycles <= words + 2 * (50 + 20)
    memory = next(row for row in arrays.units if row.unit is Unit.MEMORY)
    assert memory.busy_cycles > 0.99 * arrays.cycles


@settings(max_examples=100, deadline=None)
@given(
    config=machines(),
    sizes=st.integers(1, 8),
    repeats=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_cascade_selection_takes_the_cycles_of_the_topk_engine(
    config: AcceleratorConfig, sizes: int, repeats: int, seed: int, data: st.DataObject
) -> None:
    """Equal to the beat-exact engine with one bank."""
    k = data.draw(st.integers(0, sizes))
    scores = np.random.default_rng(seed).standard_normal((repeats, sizes)).astype(np.float32)
    op = TopK(layer=0, n=sizes, k=k, scope=TopKScope.TOKEN, repeats=repeats)
    report = simulate(Trace((op,), {(0, "scores"): scores}), config)
    bits = config.formats.token_importance_bits
    integers = quantised_scores(scores, bits)
    lanes, parallelism = config.softmax.lanes, config.topk.parallelism
    chosen = selections(config, np.full(repeats, sizes), np.full(repeats, k), integers.reshape(-1), bits)
    beats = -(-sizes // min(lanes, parallelism))
    rows = packet_rows(sizes, parallelism)
    survivors = []
    for row in integers:
        kept = np.zeros(sizes, np.int64)
        kept[top_k(row, k)] = 1
        survivors += [int(kept[i : i + parallelism].sum()) for i in range(0, sizes, parallelism)]
    times = topk_times(
        np.zeros(beats * repeats, np.int64),
        np.full(repeats, beats),
        np.full(repeats, rows),
        chosen.cycles,
        np.array(survivors, np.int64),
        np.zeros(0, np.bool_),
        parallelism,
        1,
    )
    assert report.cycles == times.left[-1] + 1


@settings(max_examples=100, deadline=None)
@given(
    n=st.integers(1, 70),
    parallelism=st.sampled_from([1, 2, 8, 16]),
    selector=st.sampled_from(["quick", "radix"]),
    top=st.sampled_from([2, 4096]),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_the_flush_is_the_golden_models(
    n: int, parallelism: int, selector: str, top: int, seed: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, n))
    config = load_config("spatten", [f"topk.parallelism={parallelism}", f"topk.selector={selector}"])
    scores = np.random.default_rng(seed).integers(0, top, 3 * n)
    sizes = np.full(3, n)
    found = selections(config, sizes, np.full(3, k), scores, 12)
    assert (found.flush == flush_cycles(scores, sizes, k, parallelism)).all()


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 3), n=st.integers(1, 40), bits=st.integers(8, 48), seed=st.integers(0, 2**32 - 1))
def test_quantised_scores_keep_the_order(rows: int, n: int, bits: int, seed: int) -> None:
    scores = np.random.default_rng(seed).standard_normal((rows, n)).astype(np.float32)
    integers = quantised_scores(scores, bits)
    assert integers.min() >= 0
    assert integers.max() < 1 << bits
    for real, whole in zip(scores, integers, strict=True):
        order = np.argsort(real, kind="stable")
        assert (np.diff(whole[order]) >= 0).all()


@pytest.mark.parametrize("selector", ["quick", "radix", "bitonic"])
def test_every_selector_serves_the_cascade(selector: str) -> None:
    config = load_config("spatten", [f"topk.selector={selector}"])
    some = only(TopK(layer=0, n=1000, k=300, scope=TopKScope.HEAD), config)["cycles"]
    every = only(TopK(layer=0, n=1000, k=1000, scope=TopKScope.HEAD), config)["cycles"]
    assert some > every > 1000 // 8


def test_a_topk_over_capacity_is_refused() -> None:
    with pytest.raises(InputError, match=r"op 0 \(topk\).n: more scores .* capacity = 1024"):
        simulate(Trace((TopK(layer=0, n=1025, k=1, scope=TopKScope.TOKEN),)), SPATTEN)
