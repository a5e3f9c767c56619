"""`Halting`: how much of its computation a token has done, A-ViT's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Merge


@dataclass(frozen=True)
class Halting:
    """Sum over the layers of sigmoid(scale x first channel - centre); 1 once it is over 1 - margin: `methods-more`, A-ViT.

    The last layer adds 1.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.HIDDEN})

    scale: float
    center: float
    margin: float

    def score(self, context: Context) -> Tensor:
        here = torch.sigmoid(self.scale * context.signals[Signal.HIDDEN][..., 0] - self.center)
        if context.layer == context.shape.layers - 1:
            here = torch.ones_like(here)
        total = here if context.state is None else context.state + here
        return torch.where(total > 1 - self.margin, torch.ones_like(total), total)

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        # Each token's hidden state, weighted, goes to its sum.
        return (Merge(layer=layer, sources=tokens, targets=tokens, width=shape.width, divide=False),)
