"""`Scissorhands`: slots that were often attended to less than evenly leave the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.cache.budget import HalvingBudget
from topsieve.cache.reducers.evict import Evict
from topsieve.cache.roles import CacheOnly, CachePolicy, CacheStage
from topsieve.cache.schedules import EveryLayer
from topsieve.cache.scorers.low_attention import LowAttention
from topsieve.cache.selectors.top_slots import TopSlots
from topsieve.methods.checks import check_count, check_range, check_share
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class Scissorhands(CacheOnly):
    """Scissorhands: slots that were often attended to less than evenly leave a full cache.

    Liu et al., NeurIPS 2023; specification `methods-more`, section C.

    Over the last queries, a head counts how often each slot got less than 1 / t of the attention, t being the slots that
    the query saw. When the cache holds more than its budget, a part of the budget goes at once: the slots with the
    largest counts, never the newest ones. Signals: the last rows of the probabilities.

    Differences from the paper: a prompt longer than the budget is cut to the budget first. The heads of a group count
    by their mean.

    Parameters
    ----------
    keep : the budget, as a share of the prompt's tokens, in (0, 1].
    history : queries that are counted.
    recent : newest slots that stay.
    drop_share : part of the budget that goes when one token too many is there, in [0, 1); 0 drops one slot a step.
    """

    name: ClassVar[str] = "scissorhands"

    keep: float = 0.5
    history: int = 400
    recent: int = 10
    drop_share: float = 0.5

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "history", self.history, low=1)
        check_count(self.name, "recent", self.recent)
        check_range(self.name, "drop_share", self.drop_share, 0, 0.99)

    def cache(self, shape: ModelShape) -> CachePolicy:
        if self.keep == 1:
            return CachePolicy()
        budget = HalvingBudget(keep=self.keep, last=self.recent, drop_share=self.drop_share)
        return CachePolicy((CacheStage(EveryLayer(budget), LowAttention(self.history), TopSlots(), Evict()),))
