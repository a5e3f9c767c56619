"""`GlobalLocal`: the larger of attention from all queries and from the newest ones, EMS's score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.cache.grouping import Group, folded, pooled
from topsieve.cache.roles import CacheContext, Taps
from topsieve.reduction.roles import ModelShape
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Pool1d


@dataclass(frozen=True)
class GlobalLocal:
    """max(c x column sums, sums over the last `window` rows), c bringing both to the same mean.

    Source: specification `methods-text`, section 1, steps 1 to 3. The state holds the column sum and the last `window`
    rows of each slot.

    Parameters
    ----------
    window : newest queries.
    group : how the query heads of a key-value head are joined.
    pool : window of a maximum pooling along the slots; 1 for none.
    """

    window: int = 32
    group: Group = "mean"
    pool: int = 1

    @property
    def taps(self) -> Taps:
        return Taps(column_sum=True, window=self.window)

    def observe(self, context: CacheContext) -> Tensor:
        assert context.column_sum is not None
        assert context.window is not None
        rows = folded(context.window, self.group).transpose(1, 2)  # [R, N, w]
        total = folded(context.column_sum, self.group)
        if context.state is None:
            before = rows.new_zeros((*rows.shape[:2], self.window))
        else:
            total = context.state[..., 0] + total
            before = context.state[..., 1:]
        recent = torch.cat([before, rows], dim=2)[..., -self.window :]
        return torch.cat([total.unsqueeze(-1), recent], dim=2)

    def score(self, context: CacheContext) -> Tensor:
        assert context.state is not None
        total, local = context.state[..., 0], context.state[..., 1:].sum(-1)
        total, local = total * context.valid, local * context.valid
        share = local.sum(-1, keepdim=True) / total.sum(-1, keepdim=True).clamp(min=torch.finfo(total.dtype).tiny)
        return pooled(torch.maximum(share * total, local), self.pool, "maximum", context.valid)

    def work(self, shape: ModelShape, layer: int, slots: int, queries: int) -> tuple[Op, ...]:
        if self.pool <= 1:
            return ()
        return (Pool1d(layer=layer, n=shape.kv_heads * slots, window=self.pool),)
