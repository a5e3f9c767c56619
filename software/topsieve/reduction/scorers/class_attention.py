"""`ClassAttention`: the attention the class token pays to each token, EViT's score."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class ClassAttention:
    """Probability row of token 0, mean over heads: specification `methods-more`, EViT.

    Parameters
    ----------
    more : further signals, which the selector reads.
    """

    more: frozenset[Signal] = frozenset()

    @property
    def needs(self) -> frozenset[Signal]:
        return self.more | {Signal.ATTENTION_CLS_ROW}

    def score(self, context: Context) -> Tensor:
        return context.signals[Signal.ATTENTION_CLS_ROW].mean(1)

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        return ()
