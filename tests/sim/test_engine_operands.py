"""With operands the data decides: second passes and selection times are the golden models', not drawn ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.engine import simulate
from topsieve_sim.golden.attention import attention_probabilities, machine_attention, quantise_operands
from topsieve_sim.golden.progressive import integer_threshold
from topsieve_sim.stepped.attention import SteppedAttention
from topsieve_sim.timing.attention import AttentionGroup
from topsieve_sim.trace import Op, TopKScope, Trace
from topsieve_sim.trace.ops import ProbabilityValue, QueryKey, Softmax, TopK

TINY = load_config("tiny", ["memory.model=ideal"])
FETCHED = load_config("tiny")


def drawn_trace(
    seed: int, kv_heads: int, share: int, queries: int, keys: int, kept: int, threshold: float, causal: bool = False
) -> Trace:
    """One attention group of real operands with 4 elements a head."""
    heads = kv_heads * share
    counts = {"layer": 0, "heads": heads, "kv_heads": kv_heads, "queries": queries, "keys": keys, "head_dim": 4}
    ops: list[Op] = [
        QueryKey(**counts, key_msb_bits=6, key_lsb_bits=2, threshold=threshold, lsb_rows=-1, causal=causal),
        Softmax(layer=0, heads=heads, rows=queries, cols=keys),
    ]
    if kept < keys:
        ops.append(TopK(layer=0, n=keys, k=kept, scope=TopKScope.VALUE, repeats=heads * queries))
    ops.append(ProbabilityValue(**counts, kept=kept))
    random = np.random.default_rng(seed)
    operands = {
        (index, name): (2 * random.standard_normal(op.operand_shape(name))).astype(np.float32)
        for index, op in enumerate(ops)
        for name in op.operand_names
        if name in ("query", "key", "value")
    }
    return Trace(tuple(ops), operands)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    kv_heads=st.integers(1, 3),
    share=st.integers(1, 2),
    queries=st.integers(1, 4),
    keys=st.integers(4, 24),
    threshold=st.sampled_from([0.0, 0.3, 0.6]),
    causal=st.booleans(),
    data=st.data(),
)
def test_cycles_are_those_of_the_stepped_machine_on_the_golden_decisions(
    seed: int, kv_heads: int, share: int, queries: int, keys: int, threshold: float, causal: bool, data: st.DataObject
) -> None:
    """The stepped machine selects from the golden probabilities itself, clock by clock."""
    kept = data.draw(st.integers(1, keys))
    trace = drawn_trace(seed, kv_heads, share, queries, keys, kept, threshold, causal)
    report = simulate(trace, TINY)

    heads, last = kv_heads * share, len(trace.ops) - 1
    query, key, value = trace.operands[0, "query"], trace.operands[0, "key"], trace.operands[last, "value"]
    row_keys = [max(keys - queries + 1 + q, 1) if causal else keys for _ in range(heads) for q in range(queries)]
    valid = (np.arange(keys) < np.array(row_keys)[:, None]).reshape(heads, queries, keys)
    golden = machine_attention(
        quantise_operands(query, key, value, TINY.formats),
        TINY,
        integer_threshold(threshold, TINY.formats),
        valid=valid,
    )
    scores = [
        np.ascontiguousarray(golden.probability[row // queries, row % queries, :size])
        for row, size in enumerate(row_keys)
    ]
    group = AttentionGroup(
        heads=kv_heads,
        queries=queries * share,
        keys=keys,
        kept=kept,
        head_dim=4,
        lsb_flags=golden.lsb_rows.reshape(-1),
        row_keys=np.array(row_keys, np.int64),
        progressive=threshold > 0,
        query_bits=12,
        # Without a decision to make, whole keys are fetched at once.
        key_msb_bits=6 if threshold > 0 else 8,
        key_lsb_bits=2 if threshold > 0 else 0,
        value_bits=12,
    )
    stepped = SteppedAttention(TINY, group, [row.tolist() for row in scores])
    stepped.run([], [])
    assert report.lsb_rows == golden.lsb_rows.sum()
    assert report.cycles == stepped.total_cycles


def test_a_higher_threshold_recomputes_more_rows() -> None:
    found = [simulate(drawn_trace(1, 2, 1, 4, 24, 24, threshold), TINY).lsb_rows for threshold in (0.0, 0.2, 0.5, 1.0)]
    assert found[0] == 0
    assert found == sorted(found)
    assert found[-1] > found[1] > 0


def test_equal_sequences_cost_the_same_and_are_decided_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four copies of one sequence: four times the cycles, one pass of the golden model."""
    one = drawn_trace(3, 2, 1, 3, 20, 10, 0.3)
    ops = tuple(replace(op, sequence=sequence) for sequence in range(4) for op in one.ops)
    operands = {
        (index + sequence * len(one.ops), name): array
        for sequence in range(4)
        for (index, name), array in one.operands.items()
    }
    calls = []

    def counted(*arguments: object, **named: object) -> object:
        calls.append(1)
        return attention_probabilities(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("topsieve_sim.engine.attention.attention_probabilities", counted)
    four = simulate(Trace(ops, operands), TINY)
    assert len(calls) == 1
    assert four.cycles == 4 * simulate(one, TINY).cycles


@pytest.mark.parametrize("machine", [TINY, FETCHED])
@pytest.mark.parametrize(("enabled", "threshold"), [(True, 0.5), (False, 0.5), (True, 0.0)])
def test_without_a_progressive_decision_whole_keys_are_fetched(
    machine: AcceleratorConfig, enabled: bool, threshold: float
) -> None:
    config = machine.model_copy(update={"progressive": TINY.progressive.model_copy(update={"enabled": enabled})})
    report = simulate(drawn_trace(5, 1, 1, 4, 24, 24, threshold), config)
    decides = enabled and threshold > 0
    whole = 24 * 4 * 8 // 8
    # The ideal memory holds whole keys as one, fetchers as two planes.
    in_planes = decides or machine is FETCHED
    assert report.dram_bytes["key_msb"] == (whole * 6 // 8 if in_planes else whole)  # type: ignore[index]
    assert report.dram_bytes["key_lsb"] == (whole * 2 // 8 if in_planes else 0)  # type: ignore[index]
    assert (report.lsb_rows > 0) == decides


def test_grouped_queries_fetch_their_shared_head_once() -> None:
    alone, shared = (simulate(drawn_trace(7, kv, 4 // kv, 3, 16, 16, 0.0), TINY) for kv in (4, 2))
    assert alone.macs == shared.macs
    assert alone.dram_bytes["value"] == 2 * shared.dram_bytes["value"]  # type: ignore[index]
    assert alone.dram_bytes["query"] == shared.dram_bytes["query"]  # type: ignore[index]
