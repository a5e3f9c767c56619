"""What a budget means for each sequence of a batch: how many stay, and which stay always."""

from __future__ import annotations

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import live_rank
from topsieve.reduction.roles import Context


def keep_counts(budget: Budget, context: Context) -> Tensor:
    """int64 [B]: tokens each sequence keeps under a budget that is not a threshold, those outside the segment included."""
    live = context.eligible.sum(-1)
    rows = zip(live.tolist(), context.initial.tolist(), strict=True)
    counts = torch.tensor(
        [budget.keep_count(current, initial) for current, initial in rows],
        dtype=torch.int64,
        device=context.valid.device,
    )
    return counts + context.live - live


def protected(budget: Budget, context: Context) -> Tensor:
    """bool [B, N]: live tokens that always stay, the first and the last ones of the budget and those outside the segment."""
    eligible = context.eligible
    rank = live_rank(eligible)
    ends = (rank < budget.protect_first) | (rank >= eligible.sum(-1, keepdim=True) - budget.protect_last)
    return (ends | ~eligible) & context.valid


def compared(tokens: int, budget: Budget | None) -> tuple[int, int]:
    """Of `tokens` live ones of a sequence, how many are compared and how many protected."""
    fixed = 0 if budget is None else min(tokens, budget.protect_first + budget.protect_last)
    return tokens - fixed, fixed
