"""`DominantContextual`: the best tokens stay, the others are gathered around evenly spaced ones of them, VisionZip's choice."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import compact, live_rank, top_k_mask
from topsieve.reduction.roles import Context, ModelShape, Selection, Signal
from topsieve.reduction.selectors.counting import compared, keep_counts, protected
from topsieve.reduction.selectors.diverse import cosine
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import ArgmaxRow, Norm, Similarity, TopK


@dataclass(frozen=True)
class DominantContextual:
    """Dominant tokens by score, contextual ones by the cosine of keys (mean over heads): `methods-more`, VisionZip.

    Of the m tokens that are not dominant, those numbered 0, step, 2 step, ... with step = max(1, m // contextual) stay
    too; every other one is assigned to the most similar of them, the first of equally similar ones.

    Parameters
    ----------
    contextual : how many of the kept tokens are contextual.
    contextual_share : the same as a share of the kept, unprotected tokens, rounded down; where `contextual` is None.
    """

    contextual: int | None
    contextual_share: Fraction

    def _contextual(self, count: int) -> int:
        wanted = int(self.contextual_share * count) if self.contextual is None else self.contextual
        return min(wanted, count)

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        fixed = protected(budget, context)
        free = context.valid & ~fixed
        counts = (keep_counts(budget, context) - fixed.sum(-1)).tolist()
        contextual = [self._contextual(count) for count in counts]
        dominant = torch.tensor([a - b for a, b in zip(counts, contextual, strict=True)], device=scores.device)
        chosen = fixed | top_k_mask(scores, dominant, free)
        target = torch.full_like(context.positions, -1)
        metric = context.signals[Signal.KEY].mean(1)
        for row, count in enumerate(contextual):
            rest = (free[row] & ~chosen[row]).nonzero().flatten()
            if not count:
                continue
            step = max(1, len(rest) // count)
            targets = rest[::step][:count]
            chosen[row, targets] = True
            members = rest[~torch.isin(rest, targets)]
            if len(members):
                target[row, members] = targets[cosine(metric[row, members], metric[row, targets]).argmax(1)]
        keep, valid = compact(chosen)
        slot = live_rank(chosen)
        assign = torch.where(target >= 0, slot.gather(1, target.clamp(min=0)), -1)
        return Selection(keep=keep, valid=valid, scores=scores, assign=assign)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        n, fixed = compared(tokens, budget)
        if kept >= tokens:
            return ()
        contextual = self._contextual(kept - fixed)
        ops: tuple[Op, ...] = (TopK(layer=layer, n=n, k=kept - fixed - contextual, scope=TopKScope.TOKEN),)
        members = tokens - kept
        if contextual:
            ops += (
                Norm(layer=layer, rows=members + contextual, width=shape.head_dim),
                Similarity(layer=layer, rows_a=members, rows_b=contextual, width=shape.head_dim),
                ArgmaxRow(layer=layer, rows=members, cols=contextual),
            )
        return ops
