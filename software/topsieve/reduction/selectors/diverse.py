"""`Diverse`: tokens stay that are far from each other, picked one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import compact
from topsieve.reduction.roles import Context, ModelShape, Selection, Signal
from topsieve.reduction.selectors.counting import compared, keep_counts, protected
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import GreedyMaxMin, Norm, Similarity

SMALLEST_NORM = 1e-12

Nearness = Literal["closest", "total"]
First = Literal["isolated", "best"]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """float [n, m]: cosines of the rows of a [n, d] and b [m, d]."""
    unit_a = a / a.norm(dim=-1, keepdim=True).clamp(min=SMALLEST_NORM)
    unit_b = b / b.norm(dim=-1, keepdim=True).clamp(min=SMALLEST_NORM)
    product: Tensor = unit_a @ unit_b.T
    return product


def picked(similar: Tensor, scores: Tensor, count: int, nearness: Nearness, first: First, weighted: bool) -> Tensor:
    """bool [n]: `count` tokens picked greedily; of equal ones the lowest index.

    Parameters
    ----------
    similar : float [n, n], cosines.
    scores : float [n].
    nearness : a token is as near to the picked ones as to the "closest" of them, or the sum ("total") over them.
    first : the token farthest from its nearest other one ("isolated"), or the one of the best score.
    weighted : the distance to the picked ones counts times the score.
    """
    n = len(scores)
    chosen = torch.zeros(n, dtype=torch.bool, device=scores.device)
    if not count:
        return chosen
    if first == "best":
        pick = int(scores.argmax())
    else:
        others = similar.masked_fill(torch.eye(n, dtype=torch.bool, device=similar.device), float("-inf"))
        pick = int((-others.amax(0)).argmax()) if n > 1 else 0
    chosen[pick] = True
    near = similar[pick].clone()
    for _ in range(count - 1):
        merit = (1 - near) * scores if weighted else -near
        pick = int(merit.masked_fill(chosen, float("-inf")).argmax())
        chosen[pick] = True
        near = torch.maximum(near, similar[pick]) if nearness == "closest" else near + similar[pick]
    return chosen


@dataclass(frozen=True)
class Diverse:
    """Greedy selection by the cosine of the hidden states: specification `methods-more`, DivPrune; `methods-vision`, 2 and 5.

    Parameters
    ----------
    nearness, first, weighted : see `picked`.
    whole : the hardware computes all cosines at once; else, pick by pick, a row of them.
    """

    nearness: Nearness = "closest"
    first: First = "isolated"
    weighted: bool = False
    whole: bool = True

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        fixed = protected(budget, context)
        free = context.valid & ~fixed
        counts = (keep_counts(budget, context) - fixed.sum(-1)).tolist()
        hidden = context.signals[Signal.HIDDEN]
        chosen = fixed.clone()
        for row, count in enumerate(counts):
            ids = free[row].nonzero().flatten()
            if count >= len(ids):
                chosen[row, ids] = True
                continue
            similar = cosine(hidden[row, ids], hidden[row, ids])
            chosen[row, ids] = picked(similar, scores[row, ids], count, self.nearness, self.first, self.weighted)
        keep, valid = compact(chosen)
        return Selection(keep=keep, valid=valid, scores=scores)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        n, fixed = compared(tokens, budget)
        picks = kept - fixed
        if kept >= tokens or not picks:
            return ()
        return (
            Norm(layer=layer, rows=n, width=shape.width),
            Similarity(layer=layer, rows_a=n if self.whole else picks, rows_b=n, width=shape.width),
            GreedyMaxMin(layer=layer, n=n, k=picks),
        )
