"""`Unhalted`: tokens go on until their halting score is 1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import compact, top_k_mask
from topsieve.reduction.roles import Context, ModelShape, Selection
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Threshold


@dataclass(frozen=True)
class Unhalted:
    """Scores under 1 - margin stay, and after the last layer all: specification `methods-more`, A-ViT.

    Where every token of a sequence has halted, the one of the smallest score, the first of equal ones, stays in place of
    an empty sequence; it adds nothing more to the output.
    """

    margin: float

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        chosen = context.valid & (scores < 1 - self.margin)
        if context.layer == context.shape.layers - 1:
            chosen = context.valid
        keep, valid = compact(chosen | top_k_mask(-scores, torch.ones_like(context.live), context.valid))
        return Selection(keep=keep, valid=valid, scores=scores)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        return (Threshold(layer=layer, n=tokens, kept=kept),) if tokens else ()
