"""`DensityCount`: as many tokens stay as do not repeat others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import compact, top_k_mask
from topsieve.reduction.roles import Context, ModelShape, Selection, Signal
from topsieve.reduction.scorers.random_score import RandomScore
from topsieve.reduction.selectors.counting import compared, keep_counts, protected
from topsieve.reduction.selectors.diverse import cosine
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import Norm, Similarity, Threshold, TopK

SMALLEST_DRAW = 1e-12


def unique_tokens(keys: Tensor, alike: float, others: int) -> int:
    """Of keys [n, d], how many have at most `others` other keys of a cosine over `alike`."""
    similar = cosine(keys, keys) > alike
    similar.fill_diagonal_(False)
    return int((similar.sum(1) <= others).sum())


@dataclass(frozen=True)
class DensityCount:
    """The best scores stay, as many as there are tokens that do not repeat others: `methods-vision`, section 7.

    Likeness is the cosine of the keys of all heads side by side. Before `layer`, where only the state is taken, all stay.

    Parameters
    ----------
    layer : of the step that chooses.
    adaptive : the count is that of the tokens that repeat at most `others` others; else the budget's.
    alike : cosine over which a token repeats another.
    others : how many it may repeat.
    sampling : "top": the best scores stay; "drawn": tokens are drawn without replacement, with probabilities
        proportional to their scores, by the context's seed, layer and the tokens' positions alone.
    """

    layer: int
    adaptive: bool
    alike: float
    others: int
    sampling: Literal["top", "drawn"] = "top"

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        fixed = protected(budget, context)
        free = context.valid & ~fixed
        counts = keep_counts(budget, context) - fixed.sum(-1)
        if self.adaptive and context.layer == self.layer:
            keys = context.signals[Signal.KEY].transpose(1, 2).flatten(2)
            unique = [unique_tokens(keys[row, free[row]], self.alike, self.others) for row in range(len(keys))]
            counts = torch.tensor(unique, device=scores.device).clamp(min=1)
        ranked = scores
        if self.sampling == "drawn":
            # The largest of log p + Gumbel noise are a draw without replacement.
            noise = -(-RandomScore(0).score(context).to(scores).clamp(min=SMALLEST_DRAW).log()).log()
            ranked = scores.clamp(min=SMALLEST_DRAW).log() + noise
        keep, valid = compact(fixed | top_k_mask(ranked, counts, free))
        return Selection(keep=keep, valid=valid, scores=scores)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        n, fixed = compared(tokens, budget)
        if kept >= tokens or not n:
            return ()
        best = TopK(layer=layer, n=n, k=kept - fixed, scope=TopKScope.TOKEN)
        if not self.adaptive:
            return (best,)
        width = shape.heads * shape.head_dim
        return (
            Norm(layer=layer, rows=n, width=width),
            Similarity(layer=layer, rows_a=n, rows_b=n, width=width),
            Threshold(layer=layer, n=n * n, kept=0),
            best,
        )
