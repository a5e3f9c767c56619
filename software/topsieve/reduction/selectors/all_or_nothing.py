"""`AllOrNothing`: either everything stays, or nothing that may go."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import compact
from topsieve.reduction.roles import Context, ModelShape, Selection
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Threshold


@dataclass(frozen=True)
class AllOrNothing:
    """All tokens of the segment go where the sequence's largest score is under the budget's threshold; others stay."""

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        if budget.threshold is None:
            raise ValueError(f"a threshold selector takes a budget with a threshold, got {budget}")
        least = torch.finfo(scores.dtype).min
        most = scores.masked_fill(~context.eligible, least).amax(-1, keepdim=True)
        goes = context.eligible & (most < budget.threshold)
        rest = context.valid & ~goes
        # A sequence of nothing else would become empty.
        keep, valid = compact(torch.where(rest.any(-1, keepdim=True), rest, context.valid))
        return Selection(keep=keep, valid=valid, scores=scores)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        return (Threshold(layer=layer, n=2, kept=2 if kept else 0),) if tokens else ()
