"""`Units`: the tokens of one unit of the text become one, token merging for code."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import compact
from topsieve.reduction.roles import Context, ModelShape, Selection, Signal
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class Units:
    """The first token of each unit stays, the others are assigned to it: specification `methods-text`, section 9.

    Units are known before the model runs, so nothing is compared and choosing costs nothing.
    """

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        unit = context.signals[Signal.UNIT]
        eligible = context.eligible
        same = (unit.unsqueeze(2) == unit.unsqueeze(1)) & eligible.unsqueeze(2) & eligible.unsqueeze(1)
        first = same.int().argmax(-1)  # of the tokens of one unit the lowest index; 0 for tokens of none
        alone = context.valid & ~eligible
        chosen = alone | (eligible & (first == torch.arange(unit.shape[1], device=unit.device)))
        keep, valid = compact(chosen)
        slot = (chosen.cumsum(-1) - 1).gather(1, first)
        assign = torch.where(eligible & ~chosen, slot, torch.full_like(slot, -1))
        return Selection(keep=keep, valid=valid, scores=scores, assign=assign)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        return ()
