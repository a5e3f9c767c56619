"""`AttendedRecency`: the newest slots stay; the attention received is kept beside, for what is merged."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from topsieve.cache.roles import CacheContext
from topsieve.cache.scorers.received_attention import ReceivedAttention


@dataclass(frozen=True)
class AttendedRecency(ReceivedAttention):
    """Scores by position; the state is the accumulated attention, CaM's merge probabilities are made of it."""

    def score(self, context: CacheContext) -> Tensor:
        return context.positions.to(context.size.dtype)
