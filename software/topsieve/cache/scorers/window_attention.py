"""`WindowAttention`: the attention of the last queries of the prompt, SnapKV's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from topsieve.cache.grouping import Group, folded, pooled
from topsieve.cache.roles import CacheContext, Taps
from topsieve.reduction.roles import ModelShape
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Pool1d


@dataclass(frozen=True)
class WindowAttention:
    """Probabilities of the last `window` queries, summed, pooled along the slots: specification `methods-more`, SnapKV.

    Pooling sees the slots before the window only, and zeros beyond.

    Parameters
    ----------
    window : queries, which are the newest slots too.
    kernel, pool : of the pooling.
    group : how the query heads of a key-value head are joined, before pooling.
    mean : divide by the number of queries.
    """

    window: int
    kernel: int = 5
    pool: Literal["average", "maximum"] = "average"
    group: Group = "mean"
    mean: bool = False

    @property
    def taps(self) -> Taps:
        return Taps(window=self.window)

    def observe(self, context: CacheContext) -> None:
        return None

    def score(self, context: CacheContext) -> Tensor:
        assert context.window is not None
        rows = context.window.sum(2)
        if self.mean:
            queries = context.live_queries[:, -self.window :].sum(-1).clamp(min=1)
            rows = rows / queries[:, None, None]
        left = context.live.unsqueeze(-1) - context.valid.cumsum(-1)
        before = context.valid & (left >= self.window)
        return pooled(folded(rows, self.group), self.kernel, self.pool, before)

    def work(self, shape: ModelShape, layer: int, slots: int, queries: int) -> tuple[Op, ...]:
        if self.kernel <= 1 or slots <= self.window:
            return ()
        return (Pool1d(layer=layer, n=shape.kv_heads * (slots - self.window), window=self.kernel),)
