"""`AboveThreshold`: scores at or above the budget's threshold stay."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import compact, top_k_mask
from topsieve.reduction.roles import Context, ModelShape, Selection
from topsieve.reduction.selectors.counting import compared, protected
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Threshold


@dataclass(frozen=True)
class AboveThreshold:
    """Scores under `Budget.threshold` are removed, except protected tokens and the best `Budget.minimum`."""

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        if budget.threshold is None:
            raise ValueError(f"a threshold selector takes a budget with a threshold, got {budget}")
        fixed = protected(budget, context)
        free = context.valid & ~fixed
        least = torch.full_like(context.live, budget.minimum) - fixed.sum(-1)
        chosen = fixed | (free & (scores >= budget.threshold)) | top_k_mask(scores, least, free)
        keep, valid = compact(chosen)
        return Selection(keep=keep, valid=valid, scores=scores)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        n, fixed = compared(tokens, budget)
        return (Threshold(layer=layer, n=n, kept=kept - fixed),) if n else ()
