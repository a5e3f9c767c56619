"""`QueryChannels`: key channels that queries hardly use are not stored, ThinK's pruning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.cache.roles import CacheContext
from topsieve.reduction.budget import Rounding, exact, rounded
from topsieve.reduction.ordering import compact, top_k_mask
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import ModelShape
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import Norm, TopK


@dataclass(frozen=True)
class QueryChannels:
    """Specification `methods-more`, ThinK.

    After the prompt the channels with the smallest mean of squares over the last queries times mean of squares over the
    keys go, head by head; the newest keys stay whole. Queries of a group count together.

    Parameters
    ----------
    drop : share of the channels that goes; the count rounds down.
    window : queries that score, and newest keys that stay whole.
    """

    drop: float = 0.4
    window: int = 32

    def kept_channels(self, width: int) -> int:
        """Channels of `width` that stay."""
        return width - rounded(exact(self.drop) * width, Rounding.FLOOR)

    def score(self, context: CacheContext) -> Tensor:
        """float [R, d]."""
        live = context.live_queries[:, -self.window :]
        squares = context.query[:, :, -self.window :].square() * live[:, None, :, None]
        queries = squares.sum((1, 2)) / (live.sum(-1, keepdim=True) * squares.shape[1]).clamp(min=1)
        keys = (context.key.square() * context.valid.unsqueeze(-1)).sum(1) / context.live.clamp(min=1).unsqueeze(-1)
        return queries * keys

    def prune(self, context: CacheContext) -> tuple[Reduction, int] | None:
        width = context.key.shape[-1]
        slots = context.key.shape[1]
        if slots <= self.window or self.kept_channels(width) == width:
            return None
        scores = self.score(context)
        every = torch.ones_like(scores, dtype=torch.bool)
        counts = torch.full((len(scores),), self.kept_channels(width), device=scores.device)
        keep, valid = compact(top_k_mask(scores, counts, every))
        reduction = Reduction(
            n_in=width,
            keep=keep,
            valid=valid,
            positions=keep,
            size=torch.ones_like(keep, dtype=torch.float32),
            scores=scores,
            axis="channel",
            scope="kv_head",
        )
        return reduction, self.window

    def work(self, shape: ModelShape, layer: int, slots: int, queries: int) -> tuple[Op, ...]:
        width = shape.head_dim
        return (
            Norm(layer=layer, rows=shape.heads * min(queries, self.window) + shape.kv_heads * slots, width=width),
            TopK(layer=layer, n=width, k=self.kept_channels(width), scope=TopKScope.TOKEN, repeats=shape.kv_heads),
        )
