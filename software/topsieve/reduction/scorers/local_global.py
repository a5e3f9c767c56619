"""`LocalGlobal`: the attention of the class token in a shallow and in a deep layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class LocalGlobal:
    """CLS row of the probabilities, mean over heads, of this step's layer plus the state: `methods-vision`, section 7."""

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.ATTENTION_CLS_ROW, Signal.KEY})

    def score(self, context: Context) -> Tensor:
        here = context.signals[Signal.ATTENTION_CLS_ROW].mean(1)
        return here if context.state is None else context.state + here

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        return ()
