"""`Outliers`: as many tokens stay as stand out, PruMerge's choice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget, exact
from topsieve.reduction.ordering import compact, top_k_mask
from topsieve.reduction.roles import Context, ModelShape, Selection
from topsieve.reduction.selectors.counting import compared, keep_counts, protected
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import Threshold, TopK


def outlier_share(scores: Tensor) -> float:
    """Share of the scores [n] over Q3 + 1.5 (Q3 - Q1), quartiles by linear interpolation."""
    low, high = torch.quantile(scores, torch.tensor([0.25, 0.75], dtype=scores.dtype, device=scores.device))
    return float((scores > high + 1.5 * (high - low)).double().mean())


@dataclass(frozen=True)
class Outliers:
    """int(n x share) best scores stay, and, beside them, evenly spaced tokens: specification `methods-more`, PruMerge+.

    Parameters
    ----------
    adaptive : the share is that of the outliers, and at least one token; else the budget's.
    spaced : of the first n - 1 tokens evenly spaced ones stay too: with s = int(1 / share), every max(1, int(s / 3))th
        where the share is that of the outliers, else every s-th from int(s / 2) on.
    """

    adaptive: bool
    spaced: bool

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        fixed = protected(budget, context)
        free = context.valid & ~fixed
        counts = (keep_counts(budget, context) - fixed.sum(-1)).tolist()
        chosen = fixed.clone()
        for row, count in enumerate(counts):
            ids = free[row].nonzero().flatten()
            n = len(ids)
            if not n:
                continue
            # The count was rounded from the budget's share; with the outliers' it is int(n x share).
            share = outlier_share(scores[row, ids]) if self.adaptive else count / n
            wanted = int(round(n * share, 9)) if self.adaptive else count
            wanted = max(wanted, 1)
            here = torch.zeros(n, dtype=torch.bool, device=ids.device)
            here |= top_k_mask(scores[row, ids][None], torch.tensor([wanted], device=ids.device), ~here[None])[0]
            if self.spaced:
                step = int(n / wanted) if self.adaptive else int(1 / exact(budget.ratio or 1))
                first, every = (0, max(1, int(step / 3))) if self.adaptive else (step // 2, step)
                here[first : max(n - 1, 1) : every] = True
            chosen[row, ids[here]] = True
        keep, valid = compact(chosen)
        return Selection(keep=keep, valid=valid, scores=scores)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        n, fixed = compared(tokens, budget)
        if kept >= tokens or not n:
            return ()
        # Quartiles: a top-k each. The spaced tokens cost nothing to find.
        quartiles = tuple(TopK(layer=layer, n=n, k=max(n * part // 4, 1), scope=TopKScope.TOKEN) for part in (1, 3))
        best = TopK(layer=layer, n=n, k=kept - fixed, scope=TopKScope.TOKEN)
        return (*quartiles, Threshold(layer=layer, n=n, kept=kept - fixed), best) if self.adaptive else (best,)
