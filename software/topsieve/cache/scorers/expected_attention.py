"""`ExpectedAttention`: the attention that queries to come are expected to pay, from the statistics of those so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from topsieve.cache.roles import CacheContext, Taps
from topsieve.reduction.roles import ModelShape
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Norm, Similarity


@dataclass(frozen=True)
class FutureAttention:
    """softmax over the slots of E[exp(q k)] for normal q, mean over the group, times the value's norm.

    Source: specification `methods-more`, ExpectedAttention. Mean and covariance are of the prompt's queries before
    rotation, behind the sinks; both are turned by the mean rotation of the next `future` positions.

    Parameters
    ----------
    future : positions to come.
    sinks : first slots that are left out of the statistics and of the softmax; they score above all others.
    epsilon : added to the probabilities before the value's norm.
    """

    future: int = 512
    sinks: int = 4
    epsilon: float = 0.0
    taps: ClassVar[Taps] = Taps()

    def observe(self, context: CacheContext) -> None:
        return None

    def score(self, context: CacheContext) -> Tensor:
        wide = torch.promote_types(context.query.dtype, torch.float32)
        query, key = context.query.to(wide), context.key.to(wide)
        asked = context.query_positions
        used = (asked >= self.sinks).to(wide)
        # A prompt of sinks only has no statistics; all its slots then score alike.
        count = used.sum(-1).clamp(min=1)[:, None, None]
        rotation = None
        if context.rotary is not None:
            query = context.rotary.turned(query, -asked.clamp(min=0).unsqueeze(1))
            ahead = torch.arange(self.future, device=key.device)
            turns = context.rotary.matrix(ahead, wide).mean(0)
            # Turning by the prompt's length and then on is turning by the sum.
            start = context.rotary.matrix(context.initial, wide)
            rotation = turns @ start
        weighted = query * used[:, None, :, None]
        mean = weighted.sum(2) / count
        centred = (query - mean.unsqueeze(2)) * used[:, None, :, None]
        covariance = centred.transpose(2, 3) @ centred / count.unsqueeze(-1)
        if rotation is not None:
            mean = (rotation.unsqueeze(1) @ mean.unsqueeze(-1)).squeeze(-1)
            covariance = rotation.unsqueeze(1) @ covariance @ rotation.unsqueeze(1).transpose(-1, -2)
        linear = torch.einsum("rgd,rnd->rgn", mean, key)
        quadratic = torch.einsum("rnd,rgde,rne->rgn", key, covariance, key)
        logits = context.scaling * linear + 0.5 * context.scaling**2 * quadratic
        rank = context.valid.cumsum(-1) - 1
        compared = context.valid & (rank >= self.sinks)
        logits = logits.masked_fill(~compared.unsqueeze(1), torch.finfo(wide).min)
        expected = logits.softmax(-1).mean(1)
        score = (expected + self.epsilon) * context.value.to(wide).norm(dim=-1)
        return score.masked_fill(~compared, float("inf"))

    def work(self, shape: ModelShape, layer: int, slots: int, queries: int) -> tuple[Op, ...]:
        rows = shape.heads * slots
        return (
            # Covariance of the queries: each channel against each; then the quadratic form of each key.
            Similarity(layer=layer, rows_a=shape.heads * shape.head_dim, rows_b=shape.head_dim, width=queries),
            Similarity(layer=layer, rows_a=rows, rows_b=shape.head_dim, width=shape.head_dim),
            Similarity(layer=layer, rows_a=rows, rows_b=2, width=shape.head_dim),
            Norm(layer=layer, rows=shape.kv_heads * slots, width=shape.head_dim),
        )
