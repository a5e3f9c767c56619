"""`Recency`: the newest slots matter most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from topsieve.cache.roles import CacheContext, Taps
from topsieve.reduction.roles import ModelShape
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class Recency:
    """The position: with protected sinks, StreamingLLM's choice."""

    taps: ClassVar[Taps] = Taps()

    def observe(self, context: CacheContext) -> None:
        return None

    def score(self, context: CacheContext) -> Tensor:
        return context.positions.to(context.size.dtype)

    def work(self, shape: ModelShape, layer: int, slots: int, queries: int) -> tuple[Op, ...]:
        return ()
