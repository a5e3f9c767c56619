"""`Drawn`: scores drawn from the seed, the baseline that looks at nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from topsieve.cache.roles import CacheContext, Taps
from topsieve.reduction.roles import ModelShape
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class Drawn:
    """Uniform in [0, 1) by seed, layer, head and position: the same whatever else is in the batch."""

    seed: int = 0
    taps: ClassVar[Taps] = Taps()

    def observe(self, context: CacheContext) -> None:
        return None

    def score(self, context: CacheContext) -> Tensor:
        heads = context.shape.kv_heads
        longest = int(context.positions.max()) + 1
        generator = torch.Generator().manual_seed((self.seed + context.seed) * 1_000_003 + context.layer)
        # Position first: a longer batch draws more of the same sequence.
        table = torch.rand((max(longest, 1), heads), generator=generator).T.to(context.positions.device)
        rows = torch.arange(len(context.positions), device=table.device) % heads
        return table[rows].gather(1, context.positions.clamp(min=0))

    def work(self, shape: ModelShape, layer: int, slots: int, queries: int) -> tuple[Op, ...]:
        return ()
