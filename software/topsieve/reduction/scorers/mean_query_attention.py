"""`MeanQueryAttention`: what the image tokens' mean query of the next layer attends to, PACT's score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Merge, Norm, Projection, Similarity


@dataclass(frozen=True)
class MeanQueryAttention:
    """softmax over image tokens of (mean query) k / sqrt(d), mean over heads, times |h|: `methods-more`, PACT.

    Queries and keys are the next layer's, before rotation; h are the hidden states.

    Parameters
    ----------
    more : further signals, which the selector reads.
    """

    more: frozenset[Signal] = frozenset()

    @property
    def needs(self) -> frozenset[Signal]:
        return self.more | {Signal.NEXT_QUERY, Signal.NEXT_KEY, Signal.HIDDEN}

    def score(self, context: Context) -> Tensor:
        query, key = context.signals[Signal.NEXT_QUERY], context.signals[Signal.NEXT_KEY]
        image = context.eligible
        weight = image[:, None, :, None].to(query.dtype)
        mean = (query * weight).sum(2) / weight.sum(2).clamp(min=1)
        logits = (mean.unsqueeze(2) * key).sum(-1) * query.shape[-1] ** -0.5
        wide = torch.promote_types(logits.dtype, torch.float32)
        share = logits.masked_fill(~image.unsqueeze(1), torch.finfo(logits.dtype).min).softmax(-1, dtype=wide).mean(1)
        score: Tensor = share * context.signals[Signal.HIDDEN].norm(dim=-1)
        return score

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        keys, queries = shape.kv_heads * shape.head_dim, shape.heads * shape.head_dim
        return (
            Projection(layer=layer, tokens=tokens, inputs=shape.width, outputs=queries, role="q"),
            Projection(layer=layer, tokens=tokens, inputs=shape.width, outputs=keys, role="k"),
            Merge(layer=layer, sources=tokens, targets=1, width=queries),
            Similarity(layer=layer, rows_a=1, rows_b=tokens, width=queries),
            Norm(layer=layer, rows=tokens, width=shape.width),
        )
