"""`KeyLength`: how long a token's key is, DART's score of pivots."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Norm


@dataclass(frozen=True)
class KeyLength:
    """1-norm of the keys of all heads side by side: specification `methods-more`, DART.

    Parameters
    ----------
    more : further signals, which the selector reads.
    """

    more: frozenset[Signal] = frozenset()

    @property
    def needs(self) -> frozenset[Signal]:
        return self.more | {Signal.KEY}

    def score(self, context: Context) -> Tensor:
        return context.signals[Signal.KEY].abs().sum((1, 3))

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        return (Norm(layer=layer, rows=tokens, width=shape.kv_heads * shape.head_dim, p=1),)
