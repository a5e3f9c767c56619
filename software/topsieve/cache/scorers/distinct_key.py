"""`DistinctKey`: keys unlike the average key matter, KeyDiff's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import normalize

from topsieve.cache.roles import CacheContext, Taps
from topsieve.reduction.roles import ModelShape
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Merge, Norm, Similarity


@dataclass(frozen=True)
class DistinctKey:
    """Minus the cosine of the key to the mean of the unit keys of its head: specification `methods-more`, KeyDiff."""

    taps: ClassVar[Taps] = Taps()

    def observe(self, context: CacheContext) -> None:
        return None

    def score(self, context: CacheContext) -> Tensor:
        unit = normalize(context.key, dim=-1) * context.valid.unsqueeze(-1)
        anchor = unit.sum(1) / context.live.clamp(min=1).unsqueeze(-1)
        return -(unit * normalize(anchor, dim=-1).unsqueeze(1)).sum(-1)

    def work(self, shape: ModelShape, layer: int, slots: int, queries: int) -> tuple[Op, ...]:
        rows = shape.kv_heads * slots
        return (
            Norm(layer=layer, rows=rows, width=shape.head_dim),
            Merge(layer=layer, sources=rows, targets=shape.kv_heads, width=shape.head_dim),
            Similarity(layer=layer, rows_a=rows, rows_b=1, width=shape.head_dim),
        )
