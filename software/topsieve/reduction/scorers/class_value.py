"""`ClassValue`: the attention of the class token to each token times the length of its value, ATS's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Norm


@dataclass(frozen=True)
class ClassValue:
    """Probability row of token 0, summed over heads, times the 2-norm of the values: `methods-more`, ATS.

    The value of a token is the values of all its heads side by side.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.ATTENTION_CLS_ROW, Signal.VALUE})

    def score(self, context: Context) -> Tensor:
        length = context.signals[Signal.VALUE].transpose(1, 2).flatten(2).norm(dim=-1)
        score: Tensor = context.signals[Signal.ATTENTION_CLS_ROW].sum(1) * length
        return score

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        return (Norm(layer=layer, rows=tokens, width=shape.heads * shape.head_dim),)
