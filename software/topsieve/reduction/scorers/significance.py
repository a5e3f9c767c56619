"""`Significance`: the attention a token receives from the others, PoWER-BERT's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class Significance:
    """Probability column sums without the diagonal, mean over heads: specification `methods-more`, PoWER-BERT."""

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.ATTENTION_COLUMN_SUM, Signal.ATTENTION_DIAGONAL})

    def score(self, context: Context) -> Tensor:
        columns = context.signals[Signal.ATTENTION_COLUMN_SUM]
        return (columns - context.signals[Signal.ATTENTION_DIAGONAL]).mean(1)

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        return ()
