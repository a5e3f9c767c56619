"""`DistanceBounded`: the best tokens are clustered so that no member is far from its centre, PACT's choice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import compact, live_rank, top_k_mask
from topsieve.reduction.roles import Context, ModelShape, Selection, Signal
from topsieve.reduction.selectors.counting import compared, keep_counts, protected
from topsieve.reduction.selectors.diverse import cosine
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import ArgmaxRow, GreedyMaxMin, Norm, Similarity, TopK


def centres_of(distance: Tensor, cutoff: float) -> Tensor:
    """bool [n]: going down in density, tokens farther than `cutoff` from all centres so far.

    The density of a token is the sum of exp(-(distance / 2)^2) over all; of equal ones the lowest index comes first.
    """
    density = (-((distance / 2) ** 2)).exp().sum(1)
    chosen = torch.zeros(len(distance), dtype=torch.bool, device=distance.device)
    covered = chosen.clone()
    for token in density.sort(descending=True, stable=True).indices.tolist():
        if not covered[token]:
            chosen[token] = True
            covered |= distance[token] <= cutoff
    return chosen


@dataclass(frozen=True)
class DistanceBounded:
    """Top-k, then centres with members nearer than a cutoff: specification `methods-more`, PACT.

    Distance is 1 - cosine of the next layer's rotated keys, all heads side by side. Tokens kept by score go to the
    nearest centre; dropped ones too where it is not farther than `recover` x `cutoff`.
    """

    cutoff: float
    recover: float

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        fixed = protected(budget, context)
        free = context.valid & ~fixed
        best = top_k_mask(scores, keep_counts(budget, context) - fixed.sum(-1), free)
        keys = context.signals[Signal.NEXT_ROTATED_KEY].transpose(1, 2).flatten(2)
        chosen = fixed.clone()
        target = torch.full_like(context.positions, -1)
        for row in range(len(scores)):
            ids, dropped = best[row].nonzero().flatten(), (free[row] & ~best[row]).nonzero().flatten()
            if not len(ids):
                continue
            distance = 1 - cosine(keys[row, ids], keys[row, ids])
            distance.fill_diagonal_(0)
            centres = centres_of(distance, self.cutoff)
            chosen[row, ids[centres]] = True
            target[row, ids] = ids[centres][distance[:, centres].argmin(1)]
            target[row, ids[centres]] = -1
            if len(dropped):
                nearest = (1 - cosine(keys[row, dropped], keys[row, ids[centres]])).min(1)
                found = nearest.values <= self.recover * self.cutoff
                target[row, dropped[found]] = ids[centres][nearest.indices[found]]
        keep, valid = compact(chosen)
        assign = torch.where(target >= 0, live_rank(chosen).gather(1, target.clamp(min=0)), -1)
        return Selection(keep=keep, valid=valid, scores=scores, assign=assign)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        n, fixed = compared(tokens, budget)
        if kept >= tokens or budget is None or kept <= fixed:
            return ()
        best = max(budget.keep_count(tokens, tokens) - fixed, kept - fixed)
        centres, width = kept - fixed, shape.kv_heads * shape.head_dim
        ops: tuple[Op, ...] = (
            TopK(layer=layer, n=n, k=best, scope=TopKScope.TOKEN),
            Norm(layer=layer, rows=n, width=width),
            Similarity(layer=layer, rows_a=best, rows_b=best, width=width),
            TopK(layer=layer, n=best, k=best, scope=TopKScope.EDGE),
            GreedyMaxMin(layer=layer, n=best, k=centres),
            ArgmaxRow(layer=layer, rows=best, cols=centres),
        )
        if n > best:
            ops += (
                Similarity(layer=layer, rows_a=n - best, rows_b=centres, width=width),
                ArgmaxRow(layer=layer, rows=n - best, cols=centres),
            )
        return ops
