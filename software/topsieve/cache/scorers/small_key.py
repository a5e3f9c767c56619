"""`SmallKey`: keys of small norm draw attention, the score of L2 compression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from topsieve.cache.roles import CacheContext, Taps
from topsieve.reduction.roles import ModelShape
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Norm


@dataclass(frozen=True)
class SmallKey:
    """Minus the key's Euclidean norm: specification `methods-more`, Knorm."""

    taps: ClassVar[Taps] = Taps()

    def observe(self, context: CacheContext) -> None:
        return None

    def score(self, context: CacheContext) -> Tensor:
        return -context.key.norm(dim=-1)

    def work(self, shape: ModelShape, layer: int, slots: int, queries: int) -> tuple[Op, ...]:
        return (Norm(layer=layer, rows=shape.kv_heads * slots, width=shape.head_dim),)
