"""From the passes of a decoder to the operations the hardware runs; `topsieve.lower` calls it for a `CacheRecord`.

The prompt is step 0 of a trace, each later pass one more step. Keys are the slots that were left when the pass ran, so
decoding over a reduced cache fetches less; what it cost to decide (importance, selection, similarity, merging) stands
behind the layer's attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from topsieve.attention_ops import UNQUANTISED
from topsieve.cache.record import CacheDecision, CacheRecord, LayerPass
from topsieve.models.attention import kept_values
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import BitPlan, Decision, Site
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

CHANNEL_NOTE = (
    "keys are counted with all channels: what is saved by channels that are not stored is not part of this trace"
)
READ_NOTE = "keys a query reads are counted by the mean of its head's queries, rounded up, fetched for each query head"


def lower_cache(record: CacheRecord, *, operands: bool = False, bits: BitPlan | None = None) -> Trace:
    """The operations of `record`, sequence by sequence, pass by pass, layer by layer; parameters as of `topsieve.lower`.

    Heads of a layer with as many slots each are one attention group, others one group a key-value head. Operands are
    attached to groups that read all slots.
    """
    sink = PassSink(record, operands, bits)
    for sequence in range(record.sequences):
        sink.passes(sequence)
    return Trace(
        tuple(sink.ops),
        sink.operands,
        model=record.shape.name,
        method=record.method,
        layers=record.shape.layers,
        heads=record.shape.heads,
        notes=notes_of(record),
    )


def notes_of(record: CacheRecord) -> tuple[str, ...]:
    """What the trace of `record` simplifies."""
    policy = record.policy
    return (CHANNEL_NOTE,) * (policy.channels is not None) + (READ_NOTE,) * (policy.reader is not None)


def describe(record: CacheRecord) -> str:
    """Slots, bytes and FLOPs of each pass of `record`, as text."""
    lines = [
        f"{record.method} on {record.shape.name}, {record.sequences} sequences",
        "pass  queries  slots  held bytes",
    ]
    for number, (layers, held) in enumerate(zip(record.passes, record.held_bytes, strict=True)):
        queries = float(layers[0].queries.double().mean())
        slots = float(torch.stack([layer.slots.double().mean() for layer in layers]).mean())
        lines.append(f"{number:4d}  {queries:7.1f}  {slots:5.1f}  {held:10d}")
    lines.append(f"{lower_cache(record).flops / 1e9:.3f} GFLOP")
    return "\n".join(lines)


@dataclass
class PassSink:
    """Operations and operands as they come, of passes over the cache."""

    record: CacheRecord
    keep_operands: bool
    bits: BitPlan | None
    ops: list[Op] = field(default_factory=list)
    operands: dict[tuple[int, str], NDArray[np.float32]] = field(default_factory=dict)

    def passes(self, sequence: int, first: int = 0) -> None:
        """The passes of `sequence` from number `first` on."""
        for step, layers in enumerate(self.record.passes):
            for layer, following in zip(layers, [*layers[1:], layers[-1]], strict=True):
                if step >= first:
                    self.layer(layer, sequence, step, int(following.queries[sequence]))

    def layer(self, layer: LayerPass, sequence: int, step: int, ffn_tokens: int) -> None:
        """One layer of one pass of one sequence."""
        shape = self.record.shape
        queries = int(layer.queries[sequence])
        heads = int(layer.heads[sequence].sum())
        kv_heads = shape.kv_heads if heads == shape.heads else heads
        place = {"layer": layer.layer, "sequence": sequence, "step": step}
        columns = (heads + 2 * kv_heads) * shape.head_dim
        self._add(Projection(**place, tokens=queries, inputs=shape.width, outputs=columns, role="qkv"))
        self._extra(self._reading(layer, step, queries), place)
        self._attention(layer, sequence, place, queries)
        self._add(Projection(**place, tokens=queries, inputs=heads * shape.head_dim, outputs=shape.width, role="o"))
        for decision in layer.decisions:
            self._extra(self._decision(decision, sequence, queries), place)
        pruner = self.record.policy.channels
        if pruner is not None and step == 0:
            slots = int(layer.slots.reshape(-1, shape.kv_heads)[sequence].max())
            self._extra(pruner.work(shape, layer.layer, slots, queries), place)
        for cascade, _ in layer.cascade:
            self._extra(_cascade_work(cascade, self.record, sequence), place)
        self._add(
            FeedForward(**place, tokens=ffn_tokens, width=shape.width, hidden=shape.ffn_width, gated=shape.gated_ffn)
        )

    def _reading(self, layer: LayerPass, step: int, queries: int) -> tuple[Op, ...]:
        reader = self.record.policy.reader
        if reader is None or step == 0:
            return ()
        slots = int(layer.slots.max()) if layer.image_slots is None else layer.image_slots
        return reader.work(self.record.shape, layer.layer, slots, queries)

    def _attention(self, layer: LayerPass, sequence: int, place: dict[str, int], queries: int) -> None:
        """The attention groups: one for all heads, or one a key-value head where they hold or read different numbers."""
        shape = self.record.shape
        live = layer.heads[sequence].nonzero().flatten().tolist()
        groups = shape.heads // shape.kv_heads
        keys = layer.read[sequence].tolist()
        slots = layer.slots.reshape(-1, shape.kv_heads)[sequence].tolist()
        chosen = any(keys[head] != slots[head // groups] for head in live)
        if len({keys[head] for head in live}) == 1 and not chosen:
            kv_heads = shape.kv_heads if len(live) == shape.heads else len(live)
            self._group(layer, sequence, place, queries, live, kv_heads, keys[live[0]], chosen)
            return
        if chosen:
            # Each query head reads slots of its own.
            for first, head in enumerate(live):
                self._group(layer, sequence, place, queries, [head], 1, keys[head], chosen, first)
            return
        for first in range(0, len(live), groups):
            members = live[first : first + groups]
            self._group(layer, sequence, place, queries, members, 1, keys[members[0]], chosen, first)

    def _group(
        self,
        layer: LayerPass,
        sequence: int,
        place: dict[str, int],
        queries: int,
        members: list[int],
        kv_heads: int,
        keys: int,
        chosen: bool,
        first_head: int = 0,
    ) -> None:
        shape, policy, heads = self.record.shape, layer.policy, len(members)
        bits = policy.bits or self.bits or UNQUANTISED
        # A prompt is causal: its queries are the last of the keys.
        causal = queries > 1
        kept = kept_values(keys, policy.value_keep) if policy.value_keep < 1 else keys
        operands = self._operands(layer, sequence, members, kv_heads, chosen)
        self._add(
            QueryKey(
                **place,
                heads=heads,
                kv_heads=kv_heads,
                queries=queries,
                keys=keys,
                head_dim=shape.head_dim,
                first_head=first_head,
                query_bits=bits.query_bits,
                key_msb_bits=bits.key_msb_bits,
                key_lsb_bits=bits.key_lsb_bits,
                threshold=bits.threshold,
                lsb_rows=self._lsb_rows(layer, bits, sequence, members),
                causal=causal,
            ),
            query=operands.get("query"),
            key=operands.get("key"),
        )
        self._add(Softmax(**place, heads=heads, rows=queries, cols=keys, size_bias=policy.size_bias))
        if layer.taps.column_sum:
            self._add(ColumnSum(**place, heads=heads, rows=queries, cols=keys))
        if layer.taps.window:
            self._add(RowPick(**place, heads=heads, rows=min(layer.taps.window, queries), cols=keys))
        if layer.taps.head_sum:
            self._add(HeadSum(**place, heads=heads, rows=queries, head_dim=shape.head_dim))
        if kept < keys:
            self._add(TopK(**place, n=keys, k=kept, scope=TopKScope.VALUE, repeats=heads * queries))
        self._add(
            ProbabilityValue(
                **place,
                heads=heads,
                kv_heads=kv_heads,
                queries=queries,
                keys=keys,
                kept=kept,
                head_dim=shape.head_dim,
                value_bits=bits.value_bits,
            ),
            value=operands.get("value"),
        )

    def _lsb_rows(self, layer: LayerPass, bits: BitPlan, sequence: int, members: list[int]) -> int:
        if layer.lsb_rows is None:
            return -1 if bits.key_lsb_bits else 0
        rows = layer.lsb_rows.reshape(-1, self.record.shape.heads)[sequence]
        return int(rows[members].sum())

    def _operands(
        self, layer: LayerPass, sequence: int, members: list[int], kv_heads: int, chosen: bool
    ) -> dict[str, Tensor]:
        """Query, key and value of these heads, live rows and slots only, oldest first.

        Where some heads are pruned, each of the others has keys and values of its own.
        """
        if not self.keep_operands or chosen or layer.query is None or layer.key is None or layer.value is None:
            return {}
        assert layer.valid is not None
        assert layer.live_queries is not None
        shape = self.record.shape
        groups = shape.heads // shape.kv_heads
        rows = [sequence * shape.kv_heads + head // groups for head in members]
        kv_rows = rows if kv_heads == len(members) else sorted(set(rows))
        query = torch.stack(
            [layer.query[row, head % groups][layer.live_queries[row]] for row, head in zip(rows, members, strict=True)]
        )
        key = torch.stack([layer.key[row][layer.valid[row]] for row in kv_rows])
        value = torch.stack([layer.value[row][layer.valid[row]] for row in kv_rows])
        return {"query": query, "key": key, "value": value}

    def _decision(self, decision: CacheDecision, sequence: int, queries: int) -> Iterator[Op]:
        """Scorer, selector and reducer of one eviction; heads are counted by the one with most slots and their mean."""
        shape, stage = self.record.shape, decision.stage
        heads = shape.kv_heads
        of_mine = slice(sequence * heads, (sequence + 1) * heads)
        slots = int(decision.slots_in[of_mine].max())
        left = decision.slots_out[of_mine]
        kept = -int(-left.sum() // heads)
        if kept >= slots:
            return
        fixed = min(int(decision.fixed[of_mine].max()), kept)
        layer = decision.step.layer
        yield from stage.scorer.work(shape, layer, slots, queries)
        yield from stage.selector.work(shape, layer, slots, kept, fixed)
        yield from stage.reducer.work(shape, layer, slots, kept)

    def _extra(self, ops: Sequence[Op] | Iterator[Op], place: dict[str, int]) -> None:
        for op in ops:
            self._add(replace(op, sequence=place["sequence"], step=place["step"]))

    def _add(self, op: Op, **operands: Any) -> None:
        for name, tensor in operands.items():
            if tensor is not None:
                array = tensor.detach().cpu().to(torch.float32).numpy()
                self.operands[len(self.ops), name] = np.ascontiguousarray(array)
        self.ops.append(op)


def _cascade_work(decision: Decision, record: CacheRecord, sequence: int) -> Iterator[Op]:
    """Selection of a cascade step. What is dropped is not fetched any more; nothing moves."""
    reduction: Reduction = decision.reduction
    tokens, kept = int(decision.tokens_in[sequence]), int(reduction.kept[sequence])
    stage, step, shape = decision.stage, decision.step, record.shape
    yield from stage.scorer.work(shape, step.layer, tokens)
    yield from stage.selector.work(shape, step.layer, tokens, kept, step.budget)
    if step.site is Site.HEAD:
        yield from stage.reducer.work(shape, step.layer, tokens, kept)
