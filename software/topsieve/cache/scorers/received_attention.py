"""`ReceivedAttention`: the attention a slot has received from all queries so far, H2O's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from topsieve.cache.grouping import Group, folded
from topsieve.cache.roles import CacheContext, Taps
from topsieve.reduction.roles import ModelShape
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class ReceivedAttention:
    """Probability column sums over the queries of all passes: specification `methods-more`, H2O. Not divided by age.

    Parameters
    ----------
    group : how the query heads of a key-value head are joined.
    sinks : oldest slots that score infinity.
    """

    group: Group = "sum"
    sinks: int = 0
    taps: ClassVar[Taps] = Taps(column_sum=True)

    def observe(self, context: CacheContext) -> Tensor:
        assert context.column_sum is not None
        here = folded(context.column_sum, self.group)
        return here if context.state is None else context.state + here

    def score(self, context: CacheContext) -> Tensor:
        assert context.state is not None
        if not self.sinks:
            return context.state
        oldest = (context.valid.cumsum(-1) <= self.sinks) & context.valid
        return context.state.masked_fill(oldest, float("inf"))

    def work(self, shape: ModelShape, layer: int, slots: int, queries: int) -> tuple[Op, ...]:
        return ()
