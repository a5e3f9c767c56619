"""Traces and heads for the tests of rivals, and attention written as plainly as it can be."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.engine import AttentionWork, prepare
from topsieve_sim.rivals.heads import Head, trace_operands, work_heads
from topsieve_sim.trace import Op, TopKScope, Trace
from topsieve_sim.trace.ops import ProbabilityValue, QueryKey, Softmax, TopK

EIGHTH = load_config("spatten-eighth")
TINY = load_config("tiny")


def attention_trace(
    seed: int,
    *,
    kv_heads: int = 2,
    share: int = 1,
    queries: int = 5,
    keys: int = 24,
    head_dim: int = 8,
    causal: bool = False,
    bias: bool = False,
    peak: float = 1.0,
    kept: int | None = None,
    layers: int = 1,
    operands: bool = True,
) -> Trace:
    """`layers` attention groups of normal operands; queries are `peak` times as large, which sharpens the softmax."""
    ops: list[Op] = []
    arrays = {}
    random = np.random.default_rng(seed)
    kept = keys if kept is None else kept
    counts = {"heads": kv_heads * share, "kv_heads": kv_heads, "queries": queries, "keys": keys, "head_dim": head_dim}
    for layer in range(layers):
        start = len(ops)
        ops.append(QueryKey(layer=layer, **counts, key_msb_bits=12, causal=causal))
        ops.append(Softmax(layer=layer, heads=kv_heads * share, rows=queries, cols=keys))
        if kept < keys:
            repeats = kv_heads * share * queries
            ops.append(TopK(layer=layer, n=keys, k=kept, scope=TopKScope.VALUE, repeats=repeats))
        ops.append(ProbabilityValue(layer=layer, **counts, kept=kept))
        if operands:
            for index, name in ((start, "query"), (start, "key"), (len(ops) - 1, "value")):
                array = random.standard_normal(ops[index].operand_shape(name)) * (peak if name == "query" else 1.0)
                arrays[index, name] = array.astype(np.float32)
            if bias:
                arrays[start, "bias"] = np.log(random.integers(1, 5, keys)).astype(np.float32)
    return Trace(tuple(ops), arrays, model="drawn", method="none")


@st.composite
def traces(draw: st.DrawFn, min_keys: int = 1) -> Trace:
    """One layer of attention, any shape that a small machine takes."""
    return attention_trace(
        draw(st.integers(0, 2**32 - 1)),
        kv_heads=draw(st.integers(1, 3)),
        share=draw(st.integers(1, 2)),
        queries=draw(st.integers(1, 5)),
        keys=draw(st.integers(min_keys, 32)),
        head_dim=draw(st.sampled_from([1, 4, 6, 8])),
        causal=draw(st.booleans()),
        bias=draw(st.booleans()),
        peak=draw(st.sampled_from([0.1, 1.0, 4.0])),
    )


def heads_of(trace: Trace, config: AcceleratorConfig) -> list[Head]:
    """All key-value heads of `trace` with their operands."""
    source = trace_operands(trace)
    return [
        head
        for unit in prepare(trace).work
        if isinstance(unit, AttentionWork)
        for head in work_heads(unit, config, [source(group) for group in unit.groups])
    ]


def plain_attention(head: Head) -> np.ndarray:
    """Attention of the rounded operands, one number after the other: float64 [rows, d]."""
    numbers = head.operands
    assert numbers is not None
    result = np.zeros((head.rows, head.head_dim))
    for row in range(head.rows):
        seen = int(head.row_keys[row])
        scores = []
        for at in range(seen):
            product = sum(int(q) * int(k) for q, k in zip(numbers.query[row], numbers.key[at], strict=True))
            scores.append(product * float(numbers.scale[row]) + float(numbers.bias[at]))
        weights = [math.exp(score - max(scores)) for score in scores]
        for column in range(head.head_dim):
            terms = [weights[at] * float(numbers.value[at, column]) for at in range(seen)]
            result[row, column] = math.fsum(terms) / math.fsum(weights)
    return result
