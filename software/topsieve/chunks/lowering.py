"""From a prompt made of chunks to the operations the hardware runs; `topsieve.lower` calls it for a `ChunkRecord`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from topsieve.attention_ops import UNQUANTISED, attention_group
from topsieve.chunks.record import ChunkLayer, ChunkRecord
from topsieve.reduction.reducers.kept_rows import HIDDEN_BITS
from topsieve.reduction.roles import BitPlan
from topsieve_sim.trace import Op, TopKScope, Trace
from topsieve_sim.trace.ops import (
    ColumnSum,
    FeedForward,
    Gather,
    Merge,
    Projection,
    RowPick,
    TopK,
)

ROWS_NOTE = (
    "queries are not the last of the keys: every query is counted with all keys, those that the mask hides included"
)


def lower_chunks(record: ChunkRecord, *, operands: bool = False, bits: BitPlan | None = None) -> Trace:
    """The operations of `record`, layer by layer.

    In front stands the choice of the tokens to compute again, a top-k a reused chunk, for all layers and heads at once. A
    layer is: the load of the reused keys and values, the turn of keys whose chunk stands elsewhere now, projections and
    attention of the queries over all keys, with the sums for the store (where a chunk is new) and for the focus (rows of
    the question), and the FFN of the queries.

    Parameters
    ----------
    operands : attach the scores of tokens to their selections.
    bits : widths of queries, keys and values; without it 32.
    """
    sink = _Sink(record, bits or UNQUANTISED)
    sink.choice(operands)
    for layer in record.layers:
        sink.ops += sink.layer(layer)
    scattered = any(not _is_suffix(record, layer) for layer in record.layers)
    return Trace(
        tuple(sink.ops),
        sink.operands,
        model=record.shape.name,
        method=record.method,
        layers=record.shape.layers,
        heads=record.shape.heads,
        notes=(ROWS_NOTE,) * scattered,
    )


def _is_suffix(record: ChunkRecord, layer: ChunkLayer) -> bool:
    """Whether the queries are the last tokens of the prompt, so that attention is causal as the hardware knows it."""
    return int(layer.rows[0]) == record.tokens - len(layer.rows)


@dataclass
class _Sink:
    """Operations and operands as they come."""

    record: ChunkRecord
    bits: BitPlan
    ops: list[Op] = field(default_factory=list)
    operands: dict[tuple[int, str], NDArray[np.float32]] = field(default_factory=dict)

    def choice(self, operands: bool) -> None:
        """Which tokens of the reused chunks are computed again."""
        for chunk in self.record.chunks:
            count = len(chunk.recomputed)
            if chunk.scores is None or not 0 < count < chunk.tokens:
                continue
            if operands:
                scores = chunk.scores.detach().float().cpu().numpy()[None]
                self.operands[len(self.ops), "scores"] = np.ascontiguousarray(scores)
            self.ops.append(TopK(layer=0, n=chunk.tokens, k=count, scope=TopKScope.TOKEN))

    def layer(self, layer: ChunkLayer) -> Iterator[Op]:
        record, shape, bits = self.record, self.record.shape, self.bits
        place = {"layer": layer.layer}
        queries, keys = len(layer.rows), record.tokens
        width = shape.kv_heads * shape.head_dim
        reused = sum(chunk.tokens for chunk in record.chunks if chunk.reused)
        moved = sum(chunk.tokens for chunk in record.chunks if chunk.moved)
        if reused:
            yield Gather(**place, rows=reused, width=2 * width, bits=HIDDEN_BITS)
        if moved:
            # A turned key is the key times a cosine and its other half times a sine.
            yield Merge(layer=layer.layer, sources=2 * moved, targets=moved, width=width, divide=False)
        columns = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        yield Projection(**place, tokens=queries, inputs=shape.width, outputs=columns, role="qkv")
        causal = queries > 1 and _is_suffix(record, layer)
        scores, softmax, values = attention_group(shape, place, queries, keys, bits, causal=causal)
        yield from (scores, softmax)
        if not all(chunk.reused for chunk in record.chunks):
            # The unit takes every row that passes; those of new chunks are what is stored.
            yield ColumnSum(**place, heads=shape.heads, rows=queries, cols=keys)
        if record.policy.focus and record.chunks:
            yield RowPick(**place, heads=shape.heads, rows=record.question, cols=keys)
        yield values
        yield Projection(**place, tokens=queries, inputs=shape.heads * shape.head_dim, outputs=shape.width, role="o")
        if layer.focus is not None:
            yield TopK(layer=layer.layer, n=len(record.chunks), k=len(layer.focus), scope=TopKScope.TOKEN)
        yield FeedForward(
            layer=layer.layer, tokens=queries, width=shape.width, hidden=shape.ffn_width, gated=shape.gated_ffn
        )
