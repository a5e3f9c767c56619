"""`H2O`: heavy hitters and recent tokens stay in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.cache.budget import CacheBudget
from topsieve.cache.grouping import GROUPS
from topsieve.cache.reducers.evict import Evict
from topsieve.cache.roles import CacheOnly, CachePolicy, CacheStage
from topsieve.cache.schedules import EveryLayer
from topsieve.cache.scorers.received_attention import ReceivedAttention
from topsieve.cache.selectors.top_slots import TopSlots
from topsieve.methods.checks import check_choice, check_count, check_range, check_share
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class H2O(CacheOnly):
    """Heavy-Hitter Oracle: the most attended slots and the newest ones stay in the cache.

    Zhang et al., NeurIPS 2023; specification `methods-more`, section C.

    After every pass each key-value head keeps its newest slots and, of the others, those with the largest attention
    received so far, summed over all queries since the slot was written. Signals: column sums of the probabilities.

    Differences from the published code: keys and values are not copied to every query head; the scores of a group are
    joined. A batch is not limited to one sequence. Ties go to the oldest slot.

    Parameters
    ----------
    keep : slots, as a share of the prompt's tokens, in (0, 1].
    recent_share : share of the slots that are the newest (the paper: one half).
    heavy, recent : slots of each kind, the published code's parameters; together they replace `keep`.
    group : how the query heads of a key-value head are joined: sum, mean or max.
    """

    name: ClassVar[str] = "h2o"

    keep: float = 0.5
    recent_share: float = 0.5
    heavy: int | None = None
    recent: int | None = None
    group: Literal["sum", "mean", "max"] = "sum"

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_range(self.name, "recent_share", self.recent_share, 0, 1)
        check_count(self.name, "heavy", self.heavy)
        check_count(self.name, "recent", self.recent)
        check_choice(self.name, "group", self.group, GROUPS)

    def cache(self, shape: ModelShape) -> CachePolicy:
        if self.heavy is not None or self.recent is not None:
            recent = self.recent or 0
            budget = CacheBudget(capacity=(self.heavy or 0) + recent, last=recent)
        elif self.keep == 1:
            return CachePolicy()
        else:
            budget = CacheBudget(keep=self.keep, last_share=self.recent_share)
        return CachePolicy((CacheStage(EveryLayer(budget), ReceivedAttention(self.group), TopSlots(), Evict()),))
