"""`CumulativeAttention`: the attention a token has received so far, SpAtten's token importance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class CumulativeAttention:
    """Probability column sums over heads and query rows, added to those of the layers before (`Context.state`).

    Source: specification `accelerator`, section 1.1.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.ATTENTION_COLUMN_SUM})

    def score(self, context: Context) -> Tensor:
        here = context.signals[Signal.ATTENTION_COLUMN_SUM].sum(1)
        return here if context.state is None else context.state + here

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        return ()
