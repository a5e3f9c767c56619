"""`ChangedFrames`: of a video's frames, what changed since an earlier one stays, DyCoke's choice."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import compact, top_k_mask
from topsieve.reduction.roles import Context, ModelShape, Selection, Signal
from topsieve.reduction.selectors.counting import compared, protected
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import Norm, Similarity, TopK


@dataclass(frozen=True)
class ChangedFrames:
    """Tokens of a frame least like the same places of an earlier frame stay: specification `methods-more`, DyCoke.

    The n tokens are `frames` frames of n // frames; what is over belongs to none and stays. Of frames 1, 3, 5, ... the
    int(share x frame) tokens of lowest cosine to the frame before stay; then, in groups of four, those of frame i + 2
    against frame i.

    Parameters
    ----------
    frames : how many.
    share : of a compared frame that stays.
    last_group : compare frames i and i + 2 of the last four frames too; the published loop stops before.
    """

    frames: int
    share: Fraction
    last_group: bool

    def pairs(self) -> list[tuple[int, int]]:
        """(earlier frame, frame that is thinned)."""
        odd = [(frame - 1, frame) for frame in range(1, self.frames, 2)]
        stop = self.frames - 2 if self.last_group else min(self.frames - 4, self.frames - 2)
        return odd + [(frame, frame + 2) for frame in range(0, max(stop, 0), 4)]

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        fixed = protected(budget, context)
        free = context.valid & ~fixed
        hidden = context.signals[Signal.HIDDEN]
        chosen = context.valid.clone()
        for row in range(len(hidden)):
            ids = free[row].nonzero().flatten()
            length = len(ids) // self.frames
            count = torch.tensor([int(self.share * length)], device=ids.device)
            for earlier, later in self.pairs():
                if not length:
                    continue
                before, after = (ids[frame * length : (frame + 1) * length] for frame in (earlier, later))
                alike = torch.cosine_similarity(hidden[row, before], hidden[row, after], dim=-1)
                stays = top_k_mask(-alike[None], count, torch.ones_like(alike, dtype=torch.bool)[None])[0]
                chosen[row, after[~stays]] = False
        keep, valid = compact(chosen)
        return Selection(keep=keep, valid=valid, scores=scores)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        n, _ = compared(tokens, budget)
        length, pairs = n // self.frames, len(self.pairs())
        if kept >= tokens or not length or not pairs:
            return ()
        return (
            Norm(layer=layer, rows=n, width=shape.width),
            Similarity(layer=layer, rows_a=pairs * length, rows_b=1, width=shape.width),
            TopK(layer=layer, n=length, k=int(self.share * length), scope=TopKScope.TOKEN, repeats=pairs),
        )
