"""`lower`: from what happened in a forward pass to the operations the hardware runs.

Source: specification `reduction-interface`, section 4.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from topsieve.attention_ops import UNQUANTISED
from topsieve.cache.lowering import PassSink, lower_cache, notes_of
from topsieve.cache.record import CacheRecord
from topsieve.chunks.lowering import lower_chunks
from topsieve.chunks.record import ChunkRecord
from topsieve.models.attention import kept_values
from topsieve.record import LayerRecord, Record, VisionRecord, dense_record
from topsieve.reduction.ordering import live_rank
from topsieve.reduction.roles import BitPlan, Decision, ModelShape, Signal, Site
from topsieve.tuning.lowering import lower_tuning
from topsieve.tuning.record import TuningRecord
from topsieve_sim.errors import InputError
from topsieve_sim.trace import Op, TopKScope, Trace
from topsieve_sim.trace.ops import (
    ColumnSum,
    FeedForward,
    HeadSum,
    ProbabilityValue,
    Projection,
    QueryKey,
    RowPick,
    Softmax,
    TopK,
)

COLUMN_SIGNALS = frozenset({Signal.ATTENTION_COLUMN_SUM, Signal.ATTENTION_DIAGONAL})


class Mode(StrEnum):
    """Which tokens a trace counts."""

    LIVE = "live"  # what the accelerator runs: live tokens, live heads, kept value rows
    PADDED = "padded"  # what the tensors of the forward pass held: padding, and everything that was computed and masked


def lower(
    record: Record | CacheRecord | TuningRecord | ChunkRecord,
    *,
    operands: bool = False,
    mode: Mode | str = Mode.LIVE,
    bits: BitPlan | None = None,
) -> Trace:
    """The operations of `record`, sequence by sequence and layer by layer.

    A layer is: projection qkv, the attention group (query_key, softmax, the taps that the scorers read, the local value
    top-k, probability_value), projection o, the decisions between attention and FFN, feed_forward, the decisions after
    the layer. A scorer that reads the diagonal taps the column sums.

    In the padded mode every sequence has the length of its tensor, all heads work and every value row is read, because
    that is how the forward pass emulates the method. Its FLOPs equal what `torch.utils.flop_counter` counts over the
    model's layers, exactly, under eager attention; with progressive quantisation the counter sees one more query_key a
    layer, because the emulation computes the scores of both planes for all rows.

    Parameters
    ----------
    record : of a forward pass; or, live mode only, of a decoder's passes (see `topsieve.cache.lowering`), of a pass of
        fine-tuning (`topsieve.tuning.lowering`, which also lowers the backward pass) or of a prompt of chunks
        (`topsieve.chunks.lowering`).
    operands : attach queries, keys, values, size biases and decision scores; needs a record that kept them.
    mode : see `Mode`.
    bits : widths of queries, keys and values where the method does not say; without it they are unquantised, 32 bits.

    Raises
    ------
    InputError
        unknown mode; or operands are asked for in the padded mode, or of a record that did not keep them.
    """
    if mode not in list(Mode):
        raise InputError("unknown mode", field="mode", value=str(mode), allowed=", ".join(Mode))
    mode = Mode(mode)
    if isinstance(record, CacheRecord | TuningRecord | ChunkRecord):
        if mode is not Mode.LIVE:
            raise InputError("a decoder's passes are lowered live", field="mode", value=str(mode), allowed=Mode.LIVE)
        if isinstance(record, CacheRecord):
            if record.vision is not None:
                return _lower_seen(record, record.vision, operands, bits)
            return lower_cache(record, operands=operands, bits=bits)
        if isinstance(record, TuningRecord):
            return lower_tuning(record, operands=operands, bits=bits)
        return lower_chunks(record, operands=operands, bits=bits)
    if mode is Mode.PADDED and record.behind is not None and len(record.behind.passes) > 1:
        raise InputError("passes behind a prompt are lowered live", field="mode", value=str(mode), allowed=Mode.LIVE)
    if operands and mode is Mode.PADDED:
        raise InputError("operands are of live tokens only", field="mode", value=str(mode), allowed=str(Mode.LIVE))
    if operands and any(layer.query is None for part in _parts(record) for layer in part.layers):
        raise InputError("the record kept no operands", field="operands", allowed="reduce(..., operands=True)")
    sink = _Sink(operands, bits)
    for sequence in range(record.sequences):
        _lower_sequence(sink, record, sequence, mode is Mode.LIVE)
        if record.behind is not None:
            sink.add_passes(record.behind, sequence, _layer_count(record) - record.shape.layers, first=1)
    notes = () if record.behind is None else notes_of(record.behind)
    notes += ("padded: every token and head of the tensors, all value rows",) if mode is Mode.PADDED else ()
    return Trace(
        tuple(sink.ops),
        sink.operands,
        model=record.shape.name,
        method=record.method,
        layers=_layer_count(record),
        heads=record.shape.heads,
        notes=notes,
    )


def describe(record: Record) -> str:
    """Tokens of each layer and FLOPs of `record` beside those of the unreduced model, as text."""
    lines = [f"{record.method} on {record.shape.name}, {record.sequences} sequences"]
    for part in _parts(record):
        if record.vision is not None:
            lines.append(f"{part.shape.tower} tower")
        lines.append("layer  tokens  to FFN  heads")
        for layer in part.layers[: part.layers_run]:
            means = [float(x.double().mean()) for x in (layer.attention_tokens, layer.ffn_tokens, layer.heads.sum(-1))]
            lines.append(f"{layer.layer:5d}  {means[0]:6.1f}  {means[1]:6.1f}  {means[2]:5.1f}")
    flops = lower(record).flops
    dense = lower(_unreduced(record)).flops
    lines.append(f"{flops / 1e9:.3f} of {dense / 1e9:.3f} GFLOP ({flops / dense:.1%})")
    return "\n".join(lines)


def _parts(record: Record) -> tuple[Record, ...]:
    """The vision tower, if there is one, and the model itself."""
    return (record,) if record.vision is None else (record.vision.tower, record)


def _layer_count(record: Record) -> int:
    return sum(part.shape.layers + part.shape.tail_layers for part in _parts(record))


def _unreduced(record: Record) -> Record:
    """The record of the same input through the model without a method."""
    vision = record.vision
    tokens = record.layers[0].attention_tokens
    if vision is None:
        return dense_record(record.shape, tokens, causal=record.causal)
    tower = dense_record(vision.tower.shape, vision.tower.layers[0].attention_tokens)
    projected = tower.layers[0].attention_tokens - (0 if tower.shape.class_token else 1)
    before = VisionRecord(
        tower, vision.projector, projected, int(projected.max()), vision.language_tokens, vision.repeats
    )
    return dense_record(record.shape, vision.language_tokens, causal=True, vision=before)


def _lower_sequence(sink: _Sink, record: Record, sequence: int, live: bool) -> None:
    """Vision tower and projector where there are any, then the model's own layers."""
    if record.vision is not None:
        _lower_vision(sink, record.vision, sequence, live)
        sink.first_layer = _tower_layers(record.vision)
    _lower_boundary(sink, record, Site.INPUT, sequence, live, layer=-1)
    _lower_layers(sink, record, sequence, live)
    for site in (Site.OUTPUT, Site.PROJECTED):
        _lower_boundary(sink, record, site, sequence, live, layer=record.shape.layers - 1)
    sink.first_layer = 0


def _lower_vision(sink: _Sink, vision: VisionRecord, sequence: int, live: bool) -> None:
    """Tower and projector, for the first of the sequences that share an image."""
    image, again = divmod(sequence, vision.repeats)
    if again:
        return
    sink.sequence = sequence
    tower = vision.tower
    _lower_layers(sink, tower, image, live)
    last = tower.shape.layers - 1
    _lower_boundary(sink, tower, Site.OUTPUT, image, live, layer=last)
    tokens = int(vision.projected_tokens[image]) if live else vision.projected_padded
    for inputs, outputs in vision.projector if tokens else ():
        sink.add(Projection(layer=last, sequence=image, tokens=tokens, inputs=inputs, outputs=outputs, role="other"))
    behind = replace(tower, shape=replace(tower.shape, width=vision.projector[-1][1]))
    _lower_boundary(sink, behind, Site.PROJECTED, image, live, layer=last)
    sink.sequence = None


def _tower_layers(vision: VisionRecord) -> int:
    return vision.tower.shape.layers + vision.tower.shape.tail_layers


def _lower_seen(record: CacheRecord, vision: VisionRecord, operands: bool, bits: BitPlan | None) -> Trace:
    """A vision tower and a projector that nothing reduced, then the passes of the language model over its cache."""
    sink = _Sink(operands, bits)
    for sequence in range(record.sequences):
        sink.keep_operands = False
        _lower_vision(sink, vision, sequence, live=True)
        sink.keep_operands = operands
        sink.add_passes(record, sequence, _tower_layers(vision), first=0)
    return Trace(
        tuple(sink.ops),
        sink.operands,
        model=record.shape.name,
        method=record.method,
        layers=_tower_layers(vision) + record.shape.layers,
        heads=record.shape.heads,
        notes=notes_of(record),
    )


def _lower_layers(sink: _Sink, record: Record, sequence: int, live: bool) -> None:
    """The layers that ran; of the tail, on the accelerator, only those whose signals a step reads."""
    for layer in record.layers[: record.layers_run if live else None]:
        _lower_layer(sink, record.shape, layer, sequence, live, record.causal)


def _lower_boundary(sink: _Sink, record: Record, site: Site, sequence: int, live: bool, *, layer: int) -> None:
    for boundary in record.boundaries:
        if boundary.site is site:
            for decision, among in zip(boundary.decisions, boundary.decided_among, strict=True):
                _lower_decision(sink, record.shape, decision, among, sequence, live, layer)


@dataclass
class _Sink:
    """Operations and operands as they come.

    `first_layer` is the number of the running part's layer 0, `sequence` what its sequence is called; None for its own.
    """

    keep_operands: bool
    bits: BitPlan | None
    first_layer: int = 0
    sequence: int | None = None
    ops: list[Op] = field(default_factory=list)
    operands: dict[tuple[int, str], NDArray[np.float32]] = field(default_factory=dict)

    def add(self, op: Op, **operands: Tensor | None) -> None:
        for name, tensor in operands.items():
            if self.keep_operands and tensor is not None:
                array = tensor.detach().cpu().to(torch.float32).numpy()
                self.operands[len(self.ops), name] = np.ascontiguousarray(array)
        if self.first_layer or self.sequence not in (None, op.sequence):
            sequence = op.sequence if self.sequence is None else self.sequence
            op = replace(op, layer=op.layer + self.first_layer, sequence=sequence)
        self.ops.append(op)

    def add_passes(self, record: CacheRecord, sequence: int, first_layer: int, first: int) -> None:
        """The passes of a decoder from number `first` on; its layer 0 is `first_layer` here."""
        passes = PassSink(record, self.keep_operands, self.bits)
        passes.passes(sequence, first)
        self.operands |= {(len(self.ops) + index, name): x for (index, name), x in passes.operands.items()}
        self.ops += [replace(op, layer=op.layer + first_layer) for op in passes.ops]


def _lower_layer(
    sink: _Sink, shape: ModelShape, layer: LayerRecord, sequence: int, live: bool, causal: bool = False
) -> None:
    tokens = int(layer.attention_tokens[sequence]) if live else layer.attention_padded
    heads = int(layer.heads[sequence].sum()) if live else shape.heads
    kv_heads = shape.kv_heads if heads == shape.heads else heads
    place = {"layer": layer.layer, "sequence": sequence}
    columns = (heads + 2 * kv_heads) * shape.head_dim
    sink.add(Projection(**place, tokens=tokens, inputs=shape.width, outputs=columns, role="qkv"))
    _lower_attention(sink, shape, layer, sequence, (tokens, heads, kv_heads), live, causal)
    sink.add(Projection(**place, tokens=tokens, inputs=heads * shape.head_dim, outputs=shape.width, role="o"))
    before = [index for index, decision in enumerate(layer.decisions) if decision.step.site is not Site.LAYER]
    after = [index for index, decision in enumerate(layer.decisions) if decision.step.site is Site.LAYER]
    _lower_decisions(sink, shape, layer, before, sequence, live)
    ffn_tokens = int(layer.ffn_tokens[sequence]) if live else layer.ffn_padded
    sink.add(FeedForward(**place, tokens=ffn_tokens, width=shape.width, hidden=shape.ffn_width, gated=shape.gated_ffn))
    _lower_decisions(sink, shape, layer, after, sequence, live)


def _lower_attention(
    sink: _Sink,
    shape: ModelShape,
    layer: LayerRecord,
    sequence: int,
    counts: tuple[int, int, int],
    live: bool,
    causal: bool,
) -> None:
    tokens, heads, kv_heads = counts
    place = {"layer": layer.layer, "sequence": sequence}
    bits = layer.policy.bits or sink.bits or UNQUANTISED
    kept = kept_values(tokens, layer.policy.value_keep) if live and layer.policy.value_keep < 1 else tokens
    operands = _attention_operands(layer, sequence) if sink.keep_operands else {}
    lsb_rows = _lsb_rows(layer, bits, sequence) if live else 0
    sink.add(
        QueryKey(
            layer=layer.layer,
            sequence=sequence,
            heads=heads,
            kv_heads=kv_heads,
            queries=tokens,
            keys=tokens,
            head_dim=shape.head_dim,
            query_bits=bits.query_bits,
            key_msb_bits=bits.key_msb_bits,
            key_lsb_bits=bits.key_lsb_bits,
            threshold=bits.threshold,
            lsb_rows=lsb_rows,
            causal=causal,
        ),
        query=operands.get("query"),
        key=operands.get("key"),
        bias=operands.get("bias"),
    )
    sink.add(Softmax(**place, heads=heads, rows=tokens, cols=tokens, size_bias=layer.policy.size_bias))
    if layer.signals & COLUMN_SIGNALS:
        sink.add(ColumnSum(**place, heads=heads, rows=tokens, cols=tokens))
    for signal in (Signal.ATTENTION_CLS_ROW, Signal.ATTENTION_LAST_ROW):
        if signal in layer.signals:
            sink.add(RowPick(**place, heads=heads, rows=1, cols=tokens))
    if Signal.HEAD_ABSOLUTE_SUM in layer.signals:
        sink.add(HeadSum(**place, heads=heads, rows=tokens, head_dim=shape.head_dim))
    if kept < tokens:
        sink.add(TopK(**place, n=tokens, k=kept, scope=TopKScope.VALUE, repeats=heads * tokens))
    sink.add(
        ProbabilityValue(
            layer=layer.layer,
            sequence=sequence,
            heads=heads,
            kv_heads=kv_heads,
            queries=tokens,
            keys=tokens,
            kept=kept,
            head_dim=shape.head_dim,
            value_bits=bits.value_bits,
        ),
        value=operands.get("value"),
    )


def _lsb_rows(layer: LayerRecord, bits: BitPlan, sequence: int) -> int:
    """Rows that were recomputed; -1 (the data decides) where the forward pass did not run the planes of `bits`."""
    if layer.lsb_rows is not None:
        return int(layer.lsb_rows[sequence].sum())
    return -1 if bits.key_lsb_bits else 0


def _attention_operands(layer: LayerRecord, sequence: int) -> dict[str, Tensor]:
    """Query, key and value of the live heads and tokens, float [heads, tokens, d], and the size bias, float [tokens]."""
    assert layer.query is not None
    assert layer.key is not None
    assert layer.value is not None
    assert layer.valid is not None
    assert layer.size is not None
    valid, heads = layer.valid[sequence], layer.heads[sequence]
    # A key head serves the query heads of its group; heads are only ever dropped where each has its own.
    key_heads = heads if layer.key.shape[1] == heads.numel() else torch.ones_like(heads[: layer.key.shape[1]])
    operands = {
        "query": layer.query[sequence][heads][:, valid],
        "key": layer.key[sequence][key_heads][:, valid],
        "value": layer.value[sequence][key_heads][:, valid],
    }
    if layer.policy.size_bias:
        operands["bias"] = layer.size[sequence][valid].log()
    return operands


def _lower_decisions(
    sink: _Sink, shape: ModelShape, layer: LayerRecord, chosen: Sequence[int], sequence: int, live: bool
) -> None:
    for index in chosen:
        _lower_decision(sink, shape, layer.decisions[index], layer.decided_among[index], sequence, live)


def _lower_decision(
    sink: _Sink,
    shape: ModelShape,
    decision: Decision,
    among: Tensor,
    sequence: int,
    live: bool,
    layer: int | None = None,
) -> None:
    """`layer` is where a step outside the layers stands; None inside of them."""
    scores = _scores(decision, among, sequence) if sink.keep_operands else None
    for op in _decision_ops(decision, among, shape, sequence, live):
        selects = isinstance(op, TopK) and op.scope in (TopKScope.TOKEN, TopKScope.HEAD)
        fits = selects and scores is not None and scores.shape[1] == op.n and op.repeats == 1
        op = replace(op, sequence=sequence, layer=op.layer if layer is None else layer)
        sink.add(op, **({"scores": scores} if fits else {}))


def _decision_ops(decision: Decision, among: Tensor, shape: ModelShape, sequence: int, live: bool) -> Iterator[Op]:
    """The work of the scorer, the selector and the reducer on the tokens that could be reduced."""
    step, stage = decision.step, decision.stage
    entered = decision.tokens_in if step.site is Site.HEAD else among.sum(-1)
    taken = decision.reduction.kept - (decision.tokens_in - entered)
    if live:
        tokens, kept = int(entered[sequence]), int(taken[sequence])
    else:
        # The tensors are as long as the longest sequence, and work is done where any sequence loses tokens.
        tokens = int(entered.max())
        kept = tokens - int((entered - taken).max())
    yield from stage.scorer.work(shape, step.layer, tokens)
    yield from stage.selector.work(shape, step.layer, tokens, kept, step.budget)
    yield from stage.reducer.work(shape, step.layer, tokens, kept)


def _scores(decision: Decision, among: Tensor, sequence: int) -> Tensor:
    """float [1, n]: the scores that a top-k compared, those of the live and unprotected tokens or heads in order."""
    budget = decision.step.budget
    live = among[sequence]
    rank = live_rank(live)
    free = live & (rank >= budget.protect_first) & (rank < live.sum() - budget.protect_last)
    return decision.reduction.scores[sequence][free].unsqueeze(0)
