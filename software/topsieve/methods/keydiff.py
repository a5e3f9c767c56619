"""`KeyDiff`: distinct keys stay in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.cache.budget import CacheBudget
from topsieve.cache.reducers.evict import Evict
from topsieve.cache.roles import CacheOnly, CachePolicy, CacheStage, Moment
from topsieve.cache.schedules import EveryLayer
from topsieve.cache.scorers.distinct_key import DistinctKey
from topsieve.cache.selectors.top_slots import TopSlots
from topsieve.methods.checks import check_flag, check_share
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class KeyDiff(CacheOnly):
    """KeyDiff: the slots whose keys differ most from the average key stay in the cache.

    Park et al., 2025; specification `methods-more`, section C.

    Each key-value head drops the keys of largest cosine to the mean of its unit keys. Signals: keys.

    Differences from the paper: a prompt is scored as a whole, not block by block.

    Parameters
    ----------
    keep : slots, as a share of the prompt's tokens, in (0, 1].
    decode : hold the budget in decoding too; else only the prompt is cut.
    """

    name: ClassVar[str] = "keydiff"

    keep: float = 0.5
    decode: bool = False

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_flag(self.name, "decode", self.decode)

    def cache(self, shape: ModelShape) -> CachePolicy:
        if self.keep == 1:
            return CachePolicy()
        schedule = EveryLayer(CacheBudget(keep=self.keep), Moment.PASS if self.decode else Moment.PROMPT)
        return CachePolicy((CacheStage(schedule, DistinctKey(), TopSlots(), Evict()),))
