"""`Stride`: evenly spaced tokens stay, whatever they hold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import compact, live_rank
from topsieve.reduction.roles import Context, ModelShape, Selection
from topsieve.reduction.selectors.counting import keep_counts, protected
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class Stride:
    """Cut the n unprotected tokens into k runs, token r into run floor(r k / n); the first token of each run stays.

    The others are assigned to the first of their run, for reducers that merge.
    """

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        fixed = protected(budget, context)
        free = context.valid & ~fixed
        n = free.sum(-1, keepdim=True).clamp(min=1)
        k = (keep_counts(budget, context) - fixed.sum(-1)).unsqueeze(-1)
        rank = live_rank(free)
        first = free & ((rank * k) // n != ((rank - 1) * k) // n)
        chosen = fixed | first
        keep, valid = compact(chosen)
        # The slot of a run's first token is the last slot given out before any later token of the run.
        slot = chosen.cumsum(-1) - 1
        assign = torch.where(free & ~first & (k > 0), slot, torch.full_like(slot, -1))
        return Selection(keep=keep, valid=valid, scores=scores, assign=assign)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        return ()
