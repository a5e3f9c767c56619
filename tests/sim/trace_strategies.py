"""Hypothesis strategies that draw valid traces, with or without operands."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from topsieve_sim.trace import Op, Trace
from topsieve_sim.trace.ops import (
    ColumnSum,
    FeedForward,
    Gather,
    HeadSum,
    Merge,
    ProbabilityValue,
    Projection,
    QueryKey,
    RowPick,
    Similarity,
    Softmax,
    TopK,
    TopKScope,
)

SMALL = st.integers(1, 6)


@st.composite
def attention_ops(draw: st.DrawFn, layer: int = 0) -> list[Op]:
    """One attention group with random counts and taps."""
    kv_heads, share, queries, keys, head_dim = (draw(SMALL) for _ in range(5))
    heads = kv_heads * share
    lsb_bits = draw(st.integers(0, 4))
    rows = draw(st.integers(-1, heads * queries)) if lsb_bits else 0
    kept = draw(st.integers(1, keys))
    place = {"layer": layer, "sequence": draw(st.integers(0, 2)), "step": draw(st.integers(0, 2))}
    ops: list[Op] = [
        QueryKey(
            **place,
            heads=heads,
            kv_heads=kv_heads,
            queries=queries,
            keys=keys,
            head_dim=head_dim,
            key_msb_bits=draw(st.integers(2, 12)),
            key_lsb_bits=lsb_bits,
            threshold=draw(st.floats(0, 1)),
            lsb_rows=rows,
        ),
        Softmax(**place, heads=heads, rows=queries, cols=keys, size_bias=draw(st.booleans())),
    ]
    if draw(st.booleans()):
        ops.append(ColumnSum(**place, heads=heads, rows=queries, cols=keys))
    if draw(st.booleans()):
        ops.append(RowPick(**place, heads=heads, rows=1, cols=keys))
    if draw(st.booleans()):
        ops.append(HeadSum(**place, heads=heads, rows=queries, head_dim=head_dim))
    if kept < keys:
        ops.append(TopK(**place, n=keys, k=kept, scope=TopKScope.VALUE, repeats=heads * queries))
    ops.append(
        ProbabilityValue(
            **place, heads=heads, kv_heads=kv_heads, queries=queries, keys=keys, kept=kept, head_dim=head_dim
        )
    )
    return ops


@st.composite
def single_ops(draw: st.DrawFn, layer: int = 0) -> Op:
    """One operation outside attention."""
    a, b, c = (draw(SMALL) for _ in range(3))
    return draw(
        st.sampled_from(
            [
                Projection(layer=layer, tokens=a, inputs=b, outputs=c, role="qkv"),
                FeedForward(layer=layer, tokens=a, width=b, hidden=c),
                TopK(layer=layer, n=a + b, k=b, scope=TopKScope.TOKEN),
                Gather(layer=layer, rows=a, width=b, bits=32),
                Merge(layer=layer, sources=a, targets=b, width=c),
                Similarity(layer=layer, rows_a=a, rows_b=b, width=c),
            ]
        )
    )


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """A trace of a few groups and single operations; operands drawn for each operation or for none."""
    ops: list[Op] = []
    for layer in range(draw(st.integers(1, 3))):
        ops += draw(st.lists(single_ops(layer), max_size=2))
        ops += draw(attention_ops(layer))
    operands = {}
    if draw(st.booleans()):
        random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        for index, op in enumerate(ops):
            if isinstance(op, TopK) and op.scope is TopKScope.VALUE:
                continue
            for name in op.operand_names:
                operands[index, name] = random.standard_normal(op.operand_shape(name)).astype(np.float32)
    return Trace(tuple(ops), operands, model="drawn", method="none", layers=3, heads=4, notes=("drawn at random",))
