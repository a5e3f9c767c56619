"""`D2O`: heavy hitters stay, what goes is merged into them, layers share their slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.cache.budget import CacheBudget
from topsieve.cache.grouping import GROUPS
from topsieve.cache.reducers.nearest import MergeNearest
from topsieve.cache.roles import CacheOnly, CachePolicy, CacheStage
from topsieve.cache.schedules import EveryLayer
from topsieve.cache.scorers.layer_density import LayerDensity
from topsieve.cache.selectors.top_slots import TopSlots
from topsieve.methods.checks import check_choice, check_count, check_range, check_share
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class D2O(CacheOnly):
    """D2O: H2O with budgets for each layer, and evicted slots merged into similar kept ones.

    Wan et al., ICLR 2025; specification `methods-more`, section C.

    After the prompt each layer gets its share of the slots by how unevenly its attention lies. Eviction is H2O's with
    protected sinks; an evicted slot is added to the kept slot of the most similar key where it passes a moving threshold.
    Signals: column sums of the probabilities, keys.

    Differences from the published code: the heads of a group are joined; the variance is that of the column sums after
    they were brought to [0, 1].

    Parameters
    ----------
    keep : slots, as a share of the prompt's tokens, mean over the layers before the whole ones are taken out, in (0, 1].
    recent_share : share of the slots that are the newest.
    sinks : first slots that stay.
    whole_first, whole_last : layers at the ends that keep everything (the paper: 2 and 1).
    alpha, beta : of the threshold's moving average.
    group : how the query heads of a key-value head are joined: sum, mean or max.
    """

    name: ClassVar[str] = "d2o"

    keep: float = 0.5
    recent_share: float = 0.5
    sinks: int = 4
    whole_first: int = 2
    whole_last: int = 1
    alpha: float = 0.5
    beta: float = 0.5
    group: Literal["sum", "mean", "max"] = "sum"

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_range(self.name, "recent_share", self.recent_share, 0, 1)
        for field in ("sinks", "whole_first", "whole_last"):
            check_count(self.name, field, getattr(self, field))
        check_range(self.name, "alpha", self.alpha, 0, 1)
        check_range(self.name, "beta", self.beta, 0, 1)
        check_choice(self.name, "group", self.group, GROUPS)

    def cache(self, shape: ModelShape) -> CachePolicy:
        if self.keep == 1:
            return CachePolicy()
        scorer = LayerDensity(self.group, self.sinks, self.keep, self.whole_first, self.whole_last)
        schedule = EveryLayer(CacheBudget(keep=self.keep, last_share=self.recent_share))
        return CachePolicy((CacheStage(schedule, scorer, TopSlots(), MergeNearest(self.alpha, self.beta)),))
