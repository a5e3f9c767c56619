"""`EntropyPaced`: the more concentrated the class token's attention, the more tokens go; FlowCut's count."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import compact, top_k_mask
from topsieve.reduction.roles import Context, ModelShape, Selection, Signal
from topsieve.reduction.selectors.counting import compared, keep_counts, protected
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import TopK


def removed(attention: Tensor, target: int, layers_left: int) -> int:
    """How many of n tokens go, for the CLS row `attention` [n]: specification `methods-vision`, 1.2 step 5.

    (n - target) / sqrt(layers_left) x (1 - (H / ln n)^2), rounded half to even, with H the entropy of the normalised row;
    all but the target where no layer is left.
    """
    n = len(attention)
    if not layers_left:
        return max(n - target, 0)
    share = attention / attention.sum()
    entropy = float(-torch.special.xlogy(share, share).sum())
    most = math.log(n) if n > 1 else 1.0
    return max(round((n - target) / math.sqrt(layers_left) * (1 - (entropy / most) ** 2)), 0)


@dataclass(frozen=True)
class EntropyPaced:
    """Towards the budget's count, in every second layer, at the pace of `removed`; in the others nothing goes.

    Parameters
    ----------
    last : the layer that reaches the count.
    """

    last: int

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        fixed = protected(budget, context)
        free = context.valid & ~fixed
        live = free.sum(-1)
        goal = (keep_counts(budget, context) - fixed.sum(-1)).clamp(max=live)
        left = self.last - context.layer
        counts = live.tolist()
        if left >= 0 and left % 2 == 0:
            attention = context.signals[Signal.ATTENTION_CLS_ROW].mean(1)
            for row, (n, target) in enumerate(zip(live.tolist(), goal.tolist(), strict=True)):
                if n > target:
                    counts[row] = max(n - removed(attention[row, free[row]], target, left), target)
        keep, valid = compact(fixed | top_k_mask(scores, torch.tensor(counts, device=live.device), free))
        return Selection(keep=keep, valid=valid, scores=scores)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        n, fixed = compared(tokens, budget)
        return (TopK(layer=layer, n=n, k=kept - fixed, scope=TopKScope.TOKEN),) if kept < tokens else ()
