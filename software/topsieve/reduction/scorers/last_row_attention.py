"""`LastRowAttention`: the attention the last token pays to each token, FastV's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class LastRowAttention:
    """Probability row of the last token, mean over heads: specification `methods-more`, FastV."""

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.ATTENTION_LAST_ROW})

    def score(self, context: Context) -> Tensor:
        return context.signals[Signal.ATTENTION_LAST_ROW].mean(1)

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        return ()
