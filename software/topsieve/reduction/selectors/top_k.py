"""`TopScores`: the largest scores stay."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import compact, top_k_mask
from topsieve.reduction.roles import Context, ModelShape, Selection
from topsieve.reduction.selectors.counting import compared, keep_counts, protected
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import TopK


@dataclass(frozen=True)
class TopScores:
    """The budget's count of largest scores beside its protected tokens; of equal scores the lowest index stays.

    Parameters
    ----------
    scope : what is selected among, for the hardware operation.
    """

    scope: TopKScope = TopKScope.TOKEN

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        fixed = protected(budget, context)
        free = keep_counts(budget, context) - fixed.sum(-1)
        keep, valid = compact(fixed | top_k_mask(scores, free, context.valid & ~fixed))
        return Selection(keep=keep, valid=valid, scores=scores)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        n, fixed = compared(tokens, budget)
        return (TopK(layer=layer, n=n, k=kept - fixed, scope=self.scope),) if kept < tokens else ()
