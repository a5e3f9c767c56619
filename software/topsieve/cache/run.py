"""One sequence batch under a cache policy, pass after pass: what attention sees, what is decided, what is recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from topsieve.cache.attention import Seen, attend
from topsieve.cache.cascade import CascadeState
from topsieve.cache.families import Decoder
from topsieve.cache.layer import KeptLayer
from topsieve.cache.record import CacheDecision, CacheRecord, LayerPass
from topsieve.cache.roles import CacheContext, CachePolicy, CacheStep, Taps
from topsieve.cache.selectors.top_slots import quotas
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import AttentionPolicy, Decision, Selection
from topsieve_sim.errors import InputError

Kernel = Callable[[], Tensor]

# The key of the reader's memory beside those of the stages; it is kept with layer 0, so that it follows the sequences.
READER = -1


@dataclass
class _Waiting:
    """A layer's context, kept until the whole pass is through."""

    layer: KeptLayer
    context: CacheContext


@dataclass
class _Pass:
    """The pass that runs: number, columns of its queries, and what its layers leave."""

    number: int
    query_columns: Tensor
    live: Tensor  # bool [B, T], live columns of the whole sequence
    positions: Tensor  # int64 [B, T], -1 for padding
    executed: frozenset[int]  # layers that run
    layers: list[LayerPass] = field(default_factory=list)
    waiting: dict[int, list[_Waiting]] = field(default_factory=dict)


class CacheRun:
    """State of one batch from its prompt on.

    Parameters
    ----------
    decoder : the model's parts.
    policy : what the method does on it.
    method : as text.
    seed : of random methods.
    keep_operands : keep query, key and value of every pass in the record.
    attention : what changes inside attention, of each layer; the policy's in all where absent.
    prompt : bool [B, T], the live columns of a prompt that was read elsewhere, by layers that were then settled.
    segment : bool [B, T], the image's columns of that prompt; None where nothing is known of them.
    """

    def __init__(
        self,
        decoder: Decoder,
        policy: CachePolicy,
        method: str,
        *,
        seed: int,
        keep_operands: bool,
        attention: Sequence[AttentionPolicy] | None = None,
        prompt: Tensor | None = None,
        segment: Tensor | None = None,
    ) -> None:
        self._decoder = decoder
        self._policy = policy
        self._method = method
        self._seed = seed
        self._keep_operands = keep_operands
        layers = range(decoder.shape.layers)
        planned = [
            (index, step) for index, stage in enumerate(policy.stages) for step in stage.schedule.plan(decoder.shape)
        ]
        self._steps: list[list[tuple[int, CacheStep]]] = [
            [i for i in planned if i[1].layer == layer] for layer in layers
        ]
        self._taps = [self._layer_taps(layer) for layer in layers]
        self._passes: list[tuple[LayerPass, ...]] = []
        self._prompt = torch.empty(0)
        self._prompt_columns = 0
        self._cascade: CascadeState | None = None
        self._now: _Pass | None = None
        self._attention = tuple(attention) if attention is not None else (policy.attention,) * decoder.shape.layers
        self._segment = segment
        self.layers = [KeptLayer() for _ in layers]
        if prompt is not None:
            self._prompt, self._prompt_columns = prompt.sum(-1), prompt.shape[1]

    @property
    def seen(self) -> int:
        """Tokens the cache has been given, padding included."""
        return self.layers[0].seen

    def prompt_read(self, layers: Sequence[LayerPass]) -> None:
        """The prompt was read elsewhere: it is pass 0."""
        self._passes.append(tuple(layers))

    def begin(self, live: Tensor, queries: int) -> None:
        """A pass of `queries` new tokens begins; `live` bool [B, T] marks the live columns up to and with them."""
        positions = (live.cumsum(-1) - 1).masked_fill(~live, -1)
        number = len(self._passes)
        total = live.shape[1]
        if number == 0:
            self._prompt = live.sum(-1)
            self._prompt_columns = total
        columns = torch.arange(total - queries, total, device=live.device)
        self._now = _Pass(number, columns, live, positions, self._executed(number, total, queries))
        cascade = self._policy.cascade
        if cascade is not None:
            if self._cascade is None:
                self._cascade = CascadeState(cascade, self._decoder.shape, self._seed)
            self._cascade.begin(live, positions, queries)

    def end(self) -> None:
        """The pass is through: stages that wait for all layers decide, and the record is written."""
        now = self._running()
        for index, waiting in sorted(now.waiting.items()):
            stage = self._policy.stages[index]
            stage.scorer.spread([one.context for one in waiting])  # type: ignore[attr-defined]
            for one in waiting:
                layer = one.context.layer
                step = next(step for i, step in self._steps[layer] if i == index)
                decision = self._decide(index, step, one.layer, one.context)
                if decision is not None:
                    record = now.layers[layer]
                    now.layers[layer] = _with(
                        record, decisions=(*record.decisions, decision), held_bytes=one.layer.nbytes
                    )
        self._passes.append(tuple(now.layers))
        self._now = None

    def runs(self, layer: int) -> bool:
        """Whether `layer` runs in this pass. One that does not gives up its slots: it will not run later either."""
        if layer in self._running().executed:
            return True
        self.layers[layer].release()
        return False

    def record(self) -> CacheRecord:
        """What happened so far."""
        return CacheRecord(
            self._decoder.shape, self._method, self._policy, int(self._prompt.numel()), tuple(self._passes)
        )

    def attention(
        self, number: int, query: Tensor, key: Tensor, value: Tensor, kernel: Kernel, *, scaling: float
    ) -> Tensor:
        """Attention of layer `number`: query [B, H, Q, d], key and value [B, KV, N, d] of all slots; [B, Q, H, d]."""
        now, layer = self._running(), self.layers[number]
        kv = key.shape[1]
        groups = query.shape[1] // kv
        rows_of = torch.arange(query.shape[0], device=query.device).repeat_interleave(kv)
        columns = layer.columns.clamp(min=0)
        valid = layer.occupied & now.live[rows_of].gather(1, columns)
        live_queries = now.live[:, now.query_columns]
        heads = torch.ones(query.shape[:2], dtype=torch.bool, device=query.device)
        if self._cascade is not None:
            valid = valid & self._cascade.alive[rows_of].gather(1, columns)
            live_queries = live_queries & self._cascade.alive[:, now.query_columns]
            heads = self._cascade.heads
        context = self._context(number, layer, query, key, value, valid, scaling, live_queries)
        chosen = None
        if self._policy.reader is not None:
            chosen = self._policy.reader.chosen(_with(context, memory=self.layers[0].memory.setdefault(READER, {})))
        taps, policy = self._taps[number], self._attention[number]
        own = (
            taps == Taps()
            and not layer.reduced
            and chosen is None
            and policy == AttentionPolicy()
            and self._cascade is None
            and not self._policy.cache_positions
        )
        seen: Seen | None = None
        if own:
            output = kernel()
        else:
            stored = key.flatten(0, 1)
            turned = context.query
            if self._policy.cache_positions and layer.reduced:
                turned, stored = self._at_cache_positions(context)
            seen = attend(
                turned,
                stored,
                value.flatten(0, 1),
                valid=valid,
                columns=columns,
                query_columns=now.query_columns,
                live_queries=context.live_queries,
                heads=heads.reshape(-1, groups),
                scaling=scaling,
                taps=taps,
                policy=policy,
                size=layer.size,
                chosen=chosen,
            )
            output = seen.output.reshape(query.shape).transpose(1, 2).to(query.dtype)
            context = _with(context, column_sum=seen.column_sum, window=seen.window)
        read = valid.sum(-1).reshape(-1, kv).repeat_interleave(groups, 1)
        if chosen is not None:
            counts = (chosen & valid[:, None, None]).sum(-1).masked_fill(~context.live_queries[:, None], 0)
            live = context.live_queries.sum(-1).clamp(min=1)
            read = -(-counts.sum(-1) // live[:, None]).reshape(-1, query.shape[1])
        operands = {}
        if self._keep_operands:
            operands = {
                "query": context.query.detach(),
                "key": context.key.detach(),
                "value": context.value.detach(),
                "valid": valid,
                "live_queries": context.live_queries,
            }
        slots = valid.sum(-1)
        channels = key.shape[-1] if layer.channels is None else layer.channels.shape[1]
        narrow = 0 if layer.narrow_keys is None else layer.narrow_keys.shape[2]
        decisions = self._act(number, layer, context)
        cascade: tuple[tuple[Decision, Tensor], ...] = ()
        if self._cascade is not None:
            assert seen is not None
            cascade = self._cascade.after(number, seen, valid, columns, kv)
            if not bool(valid.all()):
                layer.reduce(Reduction.identity(valid, positions=context.positions, size=layer.size))
        now.layers.append(
            LayerPass(
                layer=number,
                queries=live_queries.sum(-1),
                padded_queries=query.shape[2],
                padded_slots=key.shape[2],
                slots=slots,
                heads=heads,
                read=read,
                taps=taps,
                policy=policy,
                decisions=decisions,
                cascade=cascade,
                channels=channels,
                narrow_slots=narrow,
                held_bytes=layer.nbytes,
                image_slots=None if context.segment is None else int(context.segment.sum(-1).max()),
                lsb_rows=None if seen is None else seen.lsb_rows,
                **operands,
            )
        )
        return output

    def _act(self, number: int, layer: KeptLayer, context: CacheContext) -> tuple[CacheDecision, ...]:
        """Let the scorers see the pass, then take the steps that are due."""
        now = self._running()
        decisions = []
        for index, step in self._steps[number]:
            stage = self._policy.stages[index]
            mine = _with(context, state=layer.states.get(index), memory=layer.memory.setdefault(index, {}))
            state = stage.scorer.observe(mine)
            if state is not None:
                layer.states[index] = state
                mine = _with(mine, state=state)
            if hasattr(stage.scorer, "spread") and now.number == 0:
                now.waiting.setdefault(index, []).append(_Waiting(layer, mine))
                continue
            if step.due(now.number):
                decision = self._decide(index, step, layer, mine)
                if decision is not None:
                    decisions.append(decision)
        pruner = self._policy.channels
        if pruner is not None and now.number == 0:
            pruned = pruner.prune(context)
            if pruned is not None:
                layer.narrow(pruned[0].keep, pruned[1])
        return tuple(decisions)

    def _decide(self, index: int, step: CacheStep, layer: KeptLayer, context: CacheContext) -> CacheDecision | None:
        """Take one step; None where every row keeps all its slots."""
        stage = self._policy.stages[index]
        rows = quotas(step.budget, context)
        if all(row.total >= live for row, live in zip(rows, context.live.tolist(), strict=True)):
            return None
        scores = stage.scorer.score(context)
        selection: Selection = stage.selector.select(scores, step.budget, context)
        reduction = _with(stage.reducer.reduce(selection, context), scope="kv_head")
        layer.reduce(reduction)
        fixed = torch.tensor([row.first + row.last for row in rows])
        return CacheDecision(step, stage, reduction, context.live, reduction.tokens_out, fixed)

    def _context(
        self,
        number: int,
        layer: KeptLayer,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        valid: Tensor,
        scaling: float,
        live_queries: Tensor,
    ) -> CacheContext:
        now = self._running()
        kv = key.shape[1]
        rows_of = torch.arange(query.shape[0], device=query.device).repeat_interleave(kv)
        positions = now.positions[rows_of]
        segment = None
        if self._segment is not None:
            of_prompt = (layer.columns >= 0) & (layer.columns < self._segment.shape[1])
            there = self._segment[rows_of].gather(1, layer.columns.clamp(0, self._segment.shape[1] - 1))
            segment = there & of_prompt & valid
        return CacheContext(
            shape=self._decoder.shape,
            layer=number,
            valid=valid,
            positions=positions.gather(1, layer.columns.clamp(min=0)).masked_fill(~valid, -1),
            size=layer.size * valid,
            initial=self._prompt[rows_of],
            signals={},
            seed=self._seed,
            segment=segment,
            number=now.number,
            key=key.flatten(0, 1),
            value=value.flatten(0, 1),
            query=query.reshape(len(rows_of), -1, *query.shape[2:]),
            query_positions=positions[:, now.query_columns].masked_fill(~live_queries[rows_of], -1),
            rotary=self._decoder.rotary,
            scaling=scaling,
        )

    def _at_cache_positions(self, context: CacheContext) -> tuple[Tensor, Tensor]:
        """Queries and keys turned from their original position to their rank among the live slots."""
        assert context.rotary is not None
        rank = (context.valid.cumsum(-1) - 1).clamp(min=0)
        keys = context.rotary.turned(context.key, rank - context.positions.clamp(min=0))
        # The queries of this pass are the newest slots, so theirs is the rank of the slot at their own position.
        mine = torch.searchsorted(
            context.positions.masked_fill(~context.valid, -1).cummax(-1).values, context.query_positions.clamp(min=0)
        ).clamp(max=rank.shape[1] - 1)
        moved = rank.gather(1, mine) - context.query_positions.clamp(min=0)
        return context.rotary.turned(context.query, moved.unsqueeze(1)), keys

    def _executed(self, number: int, total: int, queries: int) -> frozenset[int]:
        """The layers that run in pass `number`, whose last column is `total` - 1."""
        count, budget = self._decoder.shape.layers, self._policy.layers
        if budget is None:
            return frozenset(range(count))
        if number and queries > 1:
            raise InputError(
                "positions run different layers, so tokens behind the prompt come one by one",
                field="input_ids",
                value=f"{queries} tokens",
                allowed="1",
            )
        position = total - 1 if number else 0
        return frozenset(budget.executed(position, self._prompt_columns, count))

    def _layer_taps(self, layer: int) -> Taps:
        taps = Taps()
        for index, _ in self._steps[layer]:
            taps |= self._policy.stages[index].scorer.taps
        if self._policy.cascade is not None:
            taps |= CascadeState.taps(self._policy.cascade)
        return taps

    def _running(self) -> _Pass:
        assert self._now is not None
        return self._now


def _with(thing: Any, **changes: object) -> Any:

    return replace(thing, **changes)
