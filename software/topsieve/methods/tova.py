"""`Tova`: what the newest token attends to stays in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.cache.budget import CacheBudget
from topsieve.cache.reducers.evict import Evict
from topsieve.cache.roles import CacheOnly, CachePolicy, CacheStage
from topsieve.cache.schedules import EveryLayer
from topsieve.cache.scorers.last_query import LastQuery
from topsieve.cache.selectors.top_slots import TopSlots
from topsieve.methods.checks import check_count, check_share
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class Tova(CacheOnly):
    """Token Omission Via Attention: the slots that the newest query attends to most stay in the cache.

    Oren et al., EMNLP 2024; specification `methods-more`, section C.

    After every pass all heads of a layer keep the same slots: those of the largest probability in the last query's row,
    mean over the heads. No slot is protected, not even the newest. Signals: the last row of the probabilities.

    Parameters
    ----------
    keep : slots, as a share of the prompt's tokens, in (0, 1].
    size : slots, the paper's parameter (512); replaces `keep`.
    protect_last : newest slots that stay whatever their score. The paper protects none.
    """

    name: ClassVar[str] = "tova"

    keep: float = 0.5
    size: int | None = None
    protect_last: int = 0

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "size", self.size, low=1)
        check_count(self.name, "protect_last", self.protect_last)

    def cache(self, shape: ModelShape) -> CachePolicy:
        if self.size is not None:
            budget = CacheBudget(capacity=self.size, last=self.protect_last)
        elif self.keep == 1:
            return CachePolicy()
        else:
            budget = CacheBudget(keep=self.keep, last=self.protect_last)
        stage = CacheStage(EveryLayer(budget), LastQuery(), TopSlots(shared=True), Evict(), shared=True)
        return CachePolicy((stage,))
