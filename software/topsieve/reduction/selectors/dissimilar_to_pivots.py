"""`DissimilarToPivots`: a few pivots, and the tokens that repeat them least, DART's choice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget, exact
from topsieve.reduction.ordering import compact
from topsieve.reduction.roles import Context, ModelShape, Selection, Signal
from topsieve.reduction.selectors.counting import compared, protected
from topsieve.reduction.selectors.diverse import cosine
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import Norm, Similarity, TopK


@dataclass(frozen=True)
class DissimilarToPivots:
    """Pivots by score, of the image and of the text; each takes the least similar image tokens left: `methods-more`, DART.

    The image's pivots stay. One after the other, the image's by falling score and then the text's, each pivot takes
    int(n x share / pivots) tokens of the lowest cosine to it (of the hidden states under the model's last normalisation;
    of equal ones the lowest index). `share` is the budget's ratio, n the number of image tokens.

    Parameters
    ----------
    image_pivots, text_pivots : how many; fewer where there are fewer tokens.
    """

    image_pivots: int
    text_pivots: int

    def _each(self, n: int, budget: Budget) -> int:
        return int(n * exact(budget.ratio or 0) / (self.image_pivots + self.text_pivots))

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        fixed = protected(budget, context)
        free = context.valid & ~fixed
        chosen = fixed.clone()
        hidden = context.signals[Signal.FINAL_HIDDEN]
        for row in range(len(scores)):
            image, text = free[row].nonzero().flatten(), fixed[row].nonzero().flatten()
            own = _best(scores[row], image, self.image_pivots)
            chosen[row, own] = True
            if not len(image):
                continue
            for pivot in torch.cat([own, _best(scores[row], text, self.text_pivots)]).tolist():
                left = image[~chosen[row, image]]
                alike = cosine(hidden[row, left], hidden[row, pivot][None])[:, 0]
                taken = alike.sort(stable=True).indices[: self._each(len(image), budget)]
                chosen[row, left[taken]] = True
        keep, valid = compact(chosen)
        return Selection(keep=keep, valid=valid, scores=scores)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        n, _ = compared(tokens, budget)
        pivots = self.image_pivots + self.text_pivots
        if kept >= tokens or not n or budget is None:
            return ()
        return (
            TopK(layer=layer, n=n, k=min(self.image_pivots, n), scope=TopKScope.TOKEN),
            Norm(layer=layer, rows=n, width=shape.width),
            Similarity(layer=layer, rows_a=pivots, rows_b=n, width=shape.width),
            TopK(layer=layer, n=n, k=min(self._each(n, budget), n), scope=TopKScope.EDGE, repeats=pivots),
        )


def _best(scores: Tensor, ids: Tensor, count: int) -> Tensor:
    """The `count` of `ids` of largest scores, largest first; of equal ones the lowest index."""
    return ids[scores[ids].sort(descending=True, stable=True).indices[:count]]
