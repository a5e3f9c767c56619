"""`ClassLogits`: the scores of the class token before the softmax, GlobalCom2's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class ClassLogits:
    """Scaled scores of token 0, mean over heads: specification `methods-vision`, 3.1."""

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.ATTENTION_CLS_LOGITS})

    def score(self, context: Context) -> Tensor:
        return context.signals[Signal.ATTENTION_CLS_LOGITS].mean(1)

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        return ()
