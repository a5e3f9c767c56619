"""`HeadMagnitude`: how large a head's output has been so far, SpAtten's head importance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class HeadMagnitude:
    """Absolute sums of each head's attention output, added to those of the layers before (`Context.state`).

    Source: specification `accelerator`, section 1.2.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.HEAD_ABSOLUTE_SUM})

    def score(self, context: Context) -> Tensor:
        here = context.signals[Signal.HEAD_ABSOLUTE_SUM]
        return here if context.state is None else context.state + here

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        return ()
