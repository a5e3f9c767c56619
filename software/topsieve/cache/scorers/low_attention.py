"""`LowAttention`: how often a slot was attended to less than evenly, Scissorhands' score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.cache.grouping import Group, folded
from topsieve.cache.roles import CacheContext, Taps
from topsieve.reduction.roles import ModelShape
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Threshold


@dataclass(frozen=True)
class LowAttention:
    """Minus the number of the last `history` queries that gave a slot less than 1 / t, t being the keys they saw.

    Source: specification `methods-more`, Scissorhands. The state holds one flag a slot and query, newest last.

    Parameters
    ----------
    history : queries that are remembered.
    group : how the query heads of a key-value head are joined before the comparison.
    """

    history: int = 400
    group: Group = "mean"

    @property
    def taps(self) -> Taps:
        return Taps(window=self.history)

    def observe(self, context: CacheContext) -> Tensor:
        assert context.window is not None
        rows = folded(context.window, self.group)  # [R, w, N]
        live = context.live_queries[:, -rows.shape[1] :]
        asked = context.query_positions[:, -rows.shape[1] :]
        seen = context.valid.unsqueeze(1) & (context.positions.unsqueeze(1) <= asked.unsqueeze(-1)) & live.unsqueeze(-1)
        keys = seen.sum(-1, keepdim=True).clamp(min=1)
        low = (seen & (rows < 1.0 / keys)).transpose(1, 2)
        before = context.state if context.state is not None else low.new_zeros((*low.shape[:2], self.history))
        return torch.cat([before, low], dim=2)[..., -self.history :]

    def score(self, context: CacheContext) -> Tensor:
        assert context.state is not None
        return -context.state.sum(-1).to(context.size.dtype)

    def work(self, shape: ModelShape, layer: int, slots: int, queries: int) -> tuple[Op, ...]:
        return (Threshold(layer=layer, n=shape.heads * slots * min(queries, self.history), kept=0),)
