"""`Undeleted`: tokens whose gate is over the threshold stay, MrT5's hard deletion."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import compact, live_rank
from topsieve.reduction.roles import Context, ModelShape, Selection
from topsieve_sim.errors import InputError
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Threshold


@dataclass(frozen=True)
class Undeleted:
    """Scores over `Budget.threshold`, not at it, stay; of a sequence without any, its first token.

    Specification `methods-text`, section 5. Padding never stays.

    Parameters
    ----------
    refuses_nothing_left : raise where the whole batch is under the threshold, as the published code does.
    """

    refuses_nothing_left: bool = False

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        if budget.threshold is None:
            raise ValueError(f"a threshold selector takes a budget with a threshold, got {budget}")
        if self.refuses_nothing_left and not bool((context.eligible & (scores >= budget.threshold)).any()):
            raise InputError(
                "the gate deletes every token of the batch", field="threshold", value=budget.threshold, allowed="lower"
            )
        eligible = context.eligible
        over = eligible & (scores > budget.threshold)
        first = (live_rank(eligible) == 0) & ~over.any(-1, keepdim=True)
        keep, valid = compact(over | first | (context.valid & ~eligible))
        return Selection(keep=keep, valid=valid, scores=scores)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        return (Threshold(layer=layer, n=tokens, kept=kept),) if tokens else ()
