"""`InverseCdf`: samples of the scores' distribution stay, ATS's choice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import compact
from topsieve.reduction.roles import Context, ModelShape, Selection
from topsieve.reduction.selectors.counting import compared, protected
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import Search, TopK


def sampled(scores: Tensor, samples: int) -> Tensor:
    """bool [n]: the tokens that `samples` evenly spaced points of the cumulative distribution fall on.

    Scores are sorted ascending (of equal ones the lowest index first), normalised to sum 1, added up, and the sums
    stretched to [0, 1]. The points run from the smallest sum that is not 0 to 1; each takes the token whose sum is
    nearest, the first of equally near ones.
    """
    order = scores.sort(stable=True).indices
    total = (scores / scores.sum())[order].cumsum(0)
    spread = total[-1] - total[0]
    total = (total - total[0]) / spread if spread > 0 else torch.ones_like(total)
    positive = total[total > 0]
    first = positive[0] if len(positive) else total.new_ones(())
    steps = torch.arange(samples, dtype=total.dtype, device=total.device) / max(samples - 1, 1)
    points = first + steps * (1 - first)
    nearest = (points.unsqueeze(1) - total).abs().argmin(1)
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen[order[nearest]] = True
    return chosen


UNLIMITED = 1 << 40


@dataclass(frozen=True)
class InverseCdf:
    """Evenly spaced samples of the inverse cumulative distribution of the scores: `methods-more`, ATS.

    The budget's count, less the protected tokens, is the number of samples, also where fewer tokens than that are left;
    fewer tokens stay where several samples fall on one.
    """

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        fixed = protected(budget, context)
        free = context.valid & ~fixed
        chosen = fixed.clone()
        for row, initial in enumerate(context.initial.tolist()):
            ids = free[row].nonzero().flatten()
            samples = self._samples(budget, initial, int(fixed[row].sum()))
            if len(ids) and samples > 0:
                chosen[row, ids] = sampled(scores[row, ids], samples)
        keep, valid = compact(chosen)
        return Selection(keep=keep, valid=valid, scores=scores)

    @staticmethod
    def _samples(budget: Budget, initial: int, fixed: int) -> int:
        """The budget's count whatever is left."""
        return budget.keep_count(UNLIMITED, initial) - fixed

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        n, fixed = compared(tokens, budget)
        if not n:
            return ()
        samples = n if budget is None or budget.threshold is not None else self._samples(budget, tokens, fixed)
        # The scores are sorted whole, which a top-k engine does by taking all of them.
        return (
            TopK(layer=layer, n=n, k=n, scope=TopKScope.TOKEN),
            Search(layer=layer, n=n, samples=max(samples, 1)),
        )
