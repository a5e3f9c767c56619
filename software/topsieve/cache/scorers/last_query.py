"""`LastQuery`: the attention of the newest query, mean over all heads, TOVA's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from topsieve.cache.grouping import over_heads
from topsieve.cache.roles import CacheContext, Taps
from topsieve.reduction.roles import ModelShape
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class LastQuery:
    """The last query's probabilities, mean over the heads, the same for every head: specification `methods-more`, TOVA."""

    taps: ClassVar[Taps] = Taps(window=1)

    def observe(self, context: CacheContext) -> None:
        return None

    def score(self, context: CacheContext) -> Tensor:
        assert context.window is not None
        return over_heads(context.window[:, :, -1].mean(1), context.shape.kv_heads)

    def work(self, shape: ModelShape, layer: int, slots: int, queries: int) -> tuple[Op, ...]:
        return ()
