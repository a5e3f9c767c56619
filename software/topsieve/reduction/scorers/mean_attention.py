"""`MeanAttention`: the attention a token receives in this layer, averaged over heads and rows, LTP's importance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class MeanAttention:
    """Mean over heads and over the initial tokens' rows of the probability columns; rows of removed tokens count as 0.

    Source: specification `methods-more`, LTP. The published code divides by the padded length; here it is the
    sequence's own initial length, so that padding a batch changes nothing.

    Parameters
    ----------
    relative : in units of the uniform share 1 / (initial tokens), so that one threshold serves all lengths.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.ATTENTION_COLUMN_SUM})

    relative: bool = False

    def score(self, context: Context) -> Tensor:
        rows = context.signals[Signal.ATTENTION_COLUMN_SUM].mean(1)
        return rows if self.relative else rows / context.initial.clamp(min=1).unsqueeze(-1)

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        return ()
