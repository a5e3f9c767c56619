"""From a forward pass of fine-tuning to the operations the hardware runs, and those of its backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from topsieve.attention_ops import UNQUANTISED, attention_group
from topsieve.reduction.reducers.kept_rows import HIDDEN_BITS
from topsieve.reduction.roles import BitPlan
from topsieve.tuning.record import TunedLayer, TuningRecord
from topsieve.tuning.roles import BlockScores
from topsieve_sim.trace import Op, TopKScope, Trace
from topsieve_sim.trace.ops import (
    FeedForward,
    Gather,
    Merge,
    Pool1d,
    Projection,
    Similarity,
    Threshold,
    TopK,
)

FORWARD, BACKWARD = 0, 1
BACKWARD_NOTE = "step 1 is the backward pass over frozen weights: gradients of hidden states, none of weights"


def lower_tuning(
    record: TuningRecord, *, backward: bool = False, operands: bool = False, bits: BitPlan | None = None
) -> Trace:
    """The operations of `record`, sequence by sequence and layer by layer.

    A layer is: what scores its blocks, their selection, the gather of their tokens, projections and attention on these,
    the move back, the FFN on all tokens. The backward pass, as step 1, is each product's gradient with respect to its
    inputs that are no weights, layer by layer from the last.

    Parameters
    ----------
    backward : with the backward pass.
    operands : attach the scores of blocks to their selections.
    bits : widths of queries, keys and values; without it 32.
    """
    sink = _Sink(record, operands, bits or UNQUANTISED)
    for sequence in range(record.sequences):
        for layer in record.layers:
            sink.forward(layer, sequence)
        for layer in reversed(record.layers) if backward else ():
            for op in _backward(record, layer, sequence):
                sink.ops.append(op)
    return Trace(
        tuple(sink.ops),
        sink.operands,
        model=record.shape.name,
        method=record.method,
        layers=record.shape.layers,
        heads=record.shape.heads,
        notes=(BACKWARD_NOTE,) if backward else (),
    )


def describe(record: TuningRecord) -> str:
    """Tokens of each layer's attention and FLOPs of `record`, forward and backward, as text."""
    lines = [f"{record.method} on {record.shape.name}, {record.sequences} sequences of {record.tokens} tokens"]
    lines.append("layer  attention tokens")
    lines += [f"{index:5d}  {tokens:16d}" for index, tokens in enumerate(record.attention_tokens)]
    lines.append(f"{lower_tuning(record, backward=True).flops / 1e9:.3f} GFLOP with the backward pass")
    return "\n".join(lines)


@dataclass
class _Sink:
    """Operations and operands as they come."""

    record: TuningRecord
    keep_operands: bool
    bits: BitPlan
    ops: list[Op] = field(default_factory=list)
    operands: dict[tuple[int, str], NDArray[np.float32]] = field(default_factory=dict)

    def forward(self, layer: TunedLayer, sequence: int) -> None:
        shape, bits = self.record.shape, self.bits
        place = {"layer": layer.layer, "sequence": sequence}
        rows = _rows(self.record, layer)
        if layer.scores is not None:
            self.ops += _scoring(self.record, layer, place)
            self._select(layer, sequence, place)
        moves = layer.rows is not None
        if moves:
            self.ops.append(Gather(**place, rows=rows, width=shape.width, bits=HIDDEN_BITS))
        columns = (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        self.ops += [
            Projection(**place, tokens=rows, inputs=shape.width, outputs=columns, role="qkv"),
            *attention_group(shape, place, rows, rows, bits, causal=rows > 1),
            Projection(**place, tokens=rows, inputs=shape.heads * shape.head_dim, outputs=shape.width, role="o"),
        ]
        if moves:
            self.ops.append(Gather(**place, rows=rows, width=shape.width, bits=HIDDEN_BITS))
        self.ops.append(
            FeedForward(
                layer=layer.layer,
                sequence=sequence,
                tokens=self.record.tokens,
                width=shape.width,
                hidden=shape.ffn_width,
                gated=shape.gated_ffn,
            )
        )

    def _select(self, layer: TunedLayer, sequence: int, place: dict[str, int]) -> None:
        assert layer.scores is not None
        count, kept = layer.scores.shape[1], layer.blocks.shape[1]
        if layer.plan.threshold is not None:
            self.ops.append(Threshold(**place, n=count, kept=kept))
            return
        if self.keep_operands:
            scores = layer.scores[sequence].detach().float().cpu().numpy()[None]
            self.operands[len(self.ops), "scores"] = np.ascontiguousarray(scores)
        self.ops.append(TopK(layer=layer.layer, sequence=sequence, n=count, k=kept, scope=TopKScope.TOKEN))


def _rows(record: TuningRecord, layer: TunedLayer) -> int:
    return record.tokens if layer.rows is None else layer.rows.shape[1]


def _scoring(record: TuningRecord, layer: TunedLayer, place: dict[str, int]) -> Iterator[Op]:
    """The map of blocks and its column sums."""
    assert layer.scores is not None
    shape, blocks = record.shape, layer.scores.shape[1]
    if record.policy.scores is BlockScores.ATTENTION:
        inner = shape.heads * shape.head_dim
        columns = (shape.heads + shape.kv_heads) * shape.head_dim
        yield Projection(**place, tokens=record.tokens, inputs=shape.width, outputs=columns, role="other")
        yield Similarity(**place, rows_a=record.tokens, rows_b=record.tokens, width=inner)
        yield Pool1d(**place, n=record.tokens**2, window=record.policy.block**2)
    else:
        for inputs, outputs in layer.predictor:
            yield Projection(**place, tokens=shape.heads * blocks, inputs=inputs, outputs=outputs, role="other")
        yield Similarity(**place, rows_a=blocks, rows_b=blocks, width=shape.heads * layer.predictor[-1][1])
    yield Merge(layer=layer.layer, sequence=place["sequence"], sources=blocks, targets=1, width=blocks, divide=False)


def _backward(record: TuningRecord, layer: TunedLayer, sequence: int) -> Iterator[Op]:
    """Gradients of the layer's hidden states, from its output to its input."""
    shape, rows = record.shape, _rows(record, layer)
    place = {"layer": layer.layer, "sequence": sequence, "step": BACKWARD}
    inner = shape.heads * shape.head_dim
    columns = inner + 2 * shape.kv_heads * shape.head_dim
    yield FeedForward(
        layer=layer.layer,
        sequence=sequence,
        step=BACKWARD,
        tokens=record.tokens,
        width=shape.width,
        hidden=record.channels,
        gated=shape.gated_ffn,
    )
    if layer.rows is not None:
        yield Gather(**place, rows=rows, width=shape.width, bits=HIDDEN_BITS)
    yield Projection(**place, tokens=rows, inputs=shape.width, outputs=inner, role="o")
    # Gradients of probabilities, scores and queries have the form of attention.
    yield from attention_group(shape, place, rows, rows, UNQUANTISED, causal=rows > 1)
    for _ in ("values", "keys"):
        yield Similarity(**place, rows_a=shape.heads * rows, rows_b=shape.head_dim, width=rows)
    yield Projection(**place, tokens=rows, inputs=columns, outputs=shape.width, role="qkv")
    if layer.rows is not None:
        yield Gather(**place, rows=rows, width=shape.width, bits=HIDDEN_BITS)
