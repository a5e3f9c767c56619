"""`CaM`: values that leave the cache are shared out among the next ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.cache.budget import CacheBudget
from topsieve.cache.grouping import GROUPS
from topsieve.cache.reducers.next_values import MergeNext
from topsieve.cache.roles import CacheOnly, CachePolicy, CacheStage
from topsieve.cache.schedules import EveryLayer
from topsieve.cache.scorers.attended_recency import AttendedRecency
from topsieve.cache.selectors.top_slots import OldestFirst
from topsieve.methods.checks import check_choice, check_count, check_flag, check_share
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class CaM(CacheOnly):
    """Cache Merging: sinks and recent slots stay; evicted values are shared out among the next ones.

    Zhang et al., ICML 2024; specification `methods-more`, section C.

    Eviction is StreamingLLM's, at original positions. In decoding, an evicted value is added in equal parts to the next
    kept values, with a probability that is its accumulated attention relative to theirs. Keys do not change. Signals:
    column sums of the probabilities.

    Differences from the published code: what a prompt has too much is evicted at once, without merging. The draw depends
    on seed, layer, head and position only.

    Parameters
    ----------
    keep : slots, as a share of the prompt's tokens, in (0, 1].
    sinks : first slots that stay.
    targets : values that an evicted one is shared out among.
    expected : add the expected value instead of drawing.
    group : how the query heads of a key-value head are joined: sum, mean or max.
    """

    name: ClassVar[str] = "cam"

    keep: float = 0.5
    sinks: int = 4
    targets: int = 16
    expected: bool = False
    group: Literal["sum", "mean", "max"] = "mean"

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "sinks", self.sinks)
        check_count(self.name, "targets", self.targets, low=1)
        check_flag(self.name, "expected", self.expected)
        check_choice(self.name, "group", self.group, GROUPS)

    def cache(self, shape: ModelShape) -> CachePolicy:
        if self.keep == 1:
            return CachePolicy()
        schedule = EveryLayer(CacheBudget(keep=self.keep, first=self.sinks))
        reducer = MergeNext(self.targets, self.expected)
        return CachePolicy((CacheStage(schedule, AttendedRecency(self.group), OldestFirst(), reducer),))
