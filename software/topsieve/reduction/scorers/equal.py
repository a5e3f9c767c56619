"""`Equal`: no token matters more than another; the selector decides alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class Equal:
    """The same score for all tokens.

    Parameters
    ----------
    needs : signals that the selector reads.
    """

    needs: frozenset[Signal] = frozenset()

    def score(self, context: Context) -> Tensor:
        return torch.zeros_like(context.size)

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        return ()
