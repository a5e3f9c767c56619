"""`AnchorsRegisters`: tokens at objects, their neighbours, then those the deep layers look at; HiPrune's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget, Rounding, exact, rounded
from topsieve.reduction.ordering import live_rank, top_k_mask
from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import TopK


def anchored(scores: Tensor, anchors: int, side: int) -> Tensor:
    """bool [n]: the `anchors` best of a raster with rows of `side` tokens, and what stands beside, over and under them.

    Places are numbers: the last of a row is beside the first of the next, and what falls off an end is that end.
    """
    n = len(scores)
    everything = torch.ones((1, n), dtype=torch.bool, device=scores.device)
    best = top_k_mask(scores[None], torch.tensor([anchors], device=scores.device), everything)[0].nonzero().flatten()
    near = torch.cat([best, best - 1, best + 1, best - side, best + side]).clamp(0, n - 1)
    chosen = torch.zeros(n, dtype=torch.bool, device=scores.device)
    chosen[near] = True
    return chosen


@dataclass(frozen=True)
class AnchorsRegisters:
    """Mean attention received in a deep layer; anchors of a middle layer and their neighbours come first.

    Source: specification `methods-vision`, section 4.1. In `object_layer` the result is the mean over heads and all query
    rows (the class token's included) of the probabilities; it comes along as state. At the end it is the deep layer's,
    plus 1, which is more than any mean, for the half_even(n x alpha / 5) best of the state and their neighbours, where n
    is the count of the budget.

    Parameters
    ----------
    object_layer : where the state is taken.
    budget : of the step at the end.
    alpha : share of the tokens that are anchors or neighbours.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.ATTENTION_COLUMN_SUM})

    object_layer: int
    budget: Budget
    alpha: float

    def score(self, context: Context) -> Tensor:
        sums = context.signals[Signal.ATTENTION_COLUMN_SUM].mean(1)
        # Every live query row was summed; in both layers there are as many, so the mean orders as the sum does.
        if context.state is None:
            return sums
        rows = context.live + (0 if context.shape.class_token else 1)
        score = sums / rows.unsqueeze(-1).to(sums.dtype)
        rank = live_rank(context.valid)
        for row in range(len(score)):
            ids = (rank[row] >= self.budget.protect_first).nonzero().flatten()
            total = int(context.live[row])
            count = self.budget.keep_count(total, int(context.initial[row])) - self.budget.protect_first
            anchors = rounded(exact(self.alpha) * max(count, 0) / 5, Rounding.HALF_EVEN)
            if len(ids) and anchors:
                chosen = anchored(context.state[row, ids], anchors, max(round(len(ids) ** 0.5), 1))
                score[row, ids[chosen]] += 1
        return score

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        if layer == self.object_layer or not tokens:
            return ()
        count = self.budget.keep_count(tokens, tokens) - self.budget.protect_first
        anchors = rounded(exact(self.alpha) * max(count, 0) / 5, Rounding.HALF_EVEN)
        free = tokens - self.budget.protect_first
        return (TopK(layer=layer, n=free, k=anchors, scope=TopKScope.EDGE),) if anchors and free else ()
