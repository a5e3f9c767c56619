"""`Sensitivity`: how much the projector's output moves when a token does, ZOO-Prune's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Norm, Projection

SMALLEST_LENGTH = 1e-12
SMALLEST_SPREAD = 1e-8


@dataclass(frozen=True)
class Sensitivity:
    """Mean over random directions u of |M(x + h u) - M(x - h u)| / 2h, scaled to [0, 1]: `methods-vision`, 5.1.

    M is the projector, x what enters it. All tokens share the directions. Where all
    tokens are equally sensitive, and without a projector, each scores 1.

    Parameters
    ----------
    directions : how many.
    step : h.
    seed : of the directions, added to the context's.
    unit : directions have length 1; else they are as drawn, normal.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.FEATURES, Signal.HIDDEN})

    directions: int
    step: float
    seed: int
    unit: bool = True

    def score(self, context: Context) -> Tensor:
        features = context.signals[Signal.FEATURES]
        project = context.project
        if project is None:
            return torch.ones(features.shape[:2], dtype=features.dtype, device=features.device)
        random = torch.Generator().manual_seed(self.seed + context.seed)
        total = torch.zeros(features.shape[:2], dtype=features.dtype, device=features.device)
        for _ in range(self.directions):
            direction = torch.randn(features.shape[-1], generator=random, dtype=torch.float64)
            if self.unit:
                direction = direction / (direction.norm() + SMALLEST_LENGTH)
            direction = direction.to(features) * self.step
            total = total + (project(features + direction) - project(features - direction)).norm(dim=-1)
        mean = total / (2 * self.step * self.directions)
        # The class token that stays beside the image takes no part.
        counted = context.valid & (context.valid.cumsum(-1) > (1 if context.shape.class_token else 0))
        most = mean.masked_fill(~counted, float("-inf")).amax(-1, keepdim=True)
        least = mean.masked_fill(~counted, float("inf")).amin(-1, keepdim=True)
        scaled = (mean - least) / (most - least + SMALLEST_SPREAD)
        equal = (most - least <= SMALLEST_SPREAD * most) | ~counted.any(-1, keepdim=True)
        return torch.where(equal, torch.ones_like(scaled), scaled)

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        inner, outer = shape.heads * shape.head_dim, shape.width
        probes = 2 * self.directions * tokens
        if not tokens:
            return ()
        maps = ((inner, outer), (outer, outer))
        projections = [Projection(layer=layer, tokens=probes, inputs=a, outputs=b, role="other") for a, b in maps]
        return (*projections, Norm(layer=layer, rows=probes // 2, width=outer))
