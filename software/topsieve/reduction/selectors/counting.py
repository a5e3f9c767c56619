"""What a budget means for each sequence of a batch: how many stay, and which stay always."""

from __future__ import annotations

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import live_rank
from topsieve.reduction.roles import Context


def keep_counts(budget: Budget, context: Context) -> Tensor:
    """int64 [B]: tokens each sequence keeps under a budget that is not a threshold."""
    rows = zip(context.live.tolist(), context.initial.tolist(), strict=True)
    return torch.tensor(
        [budget.keep_count(current, initial) for current, initial in rows],
        dtype=torch.int64,
        device=context.valid.device,
    )


def protected(budget: Budget, context: Context) -> Tensor:
    """bool [B, N]: live tokens that always stay, the first and the last ones of the budget."""
    rank = live_rank(context.valid)
    ends = (rank < budget.protect_first) | (rank >= context.live.unsqueeze(-1) - budget.protect_last)
    return ends & context.valid


def compared(tokens: int, budget: Budget | None) -> tuple[int, int]:
    """Of `tokens` live ones of a sequence, how many are compared and how many protected."""
    fixed = 0 if budget is None else min(tokens, budget.protect_first + budget.protect_last)
    return tokens - fixed, fixed
