"""`SnapKv`: what the end of the prompt attends to stays in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.cache.budget import CacheBudget
from topsieve.cache.grouping import GROUPS
from topsieve.cache.reducers.evict import Evict
from topsieve.cache.roles import CacheOnly, CachePolicy, CacheStage, Moment
from topsieve.cache.schedules import EveryLayer
from topsieve.cache.scorers.window_attention import WindowAttention
from topsieve.cache.selectors.top_slots import TopSlots
from topsieve.methods.checks import check_choice, check_count, check_odd, check_share
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class SnapKv(CacheOnly):
    """SnapKV: after the prompt, the slots that its last queries attend to stay, with their neighbours.

    Li et al., NeurIPS 2024; specification `methods-more`, section C.

    Once, after the prompt, each key-value head keeps the window of the newest slots and, of the others, those of the
    largest pooled attention from the window's queries. What is generated later stays whole. Signals: the last rows of
    the probabilities.

    Differences from the published code: keys and values are not copied to every query head; the scores of a group are
    joined before pooling. Survivors stay in ascending order.

    Parameters
    ----------
    keep : slots, as a share of the prompt's tokens, in (0, 1]; the window is inside.
    capacity : slots, the published code's parameter; replaces `keep`.
    window : queries that score, and newest slots that stay.
    kernel : of the pooling along the slots; odd.
    pool : "average" or "maximum".
    group : how the query heads of a key-value head are joined: sum, mean or max.
    """

    name: ClassVar[str] = "snapkv"

    keep: float = 0.5
    capacity: int | None = None
    window: int = 32
    kernel: int = 5
    pool: Literal["average", "maximum"] = "average"
    group: Literal["sum", "mean", "max"] = "mean"

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "capacity", self.capacity, low=1)
        check_count(self.name, "window", self.window, low=1)
        check_odd(self.name, "kernel", self.kernel)
        check_choice(self.name, "pool", self.pool, ("average", "maximum"))
        check_choice(self.name, "group", self.group, GROUPS)

    def cache(self, shape: ModelShape) -> CachePolicy:
        if self.capacity is not None:
            budget = CacheBudget(capacity=self.capacity, last=self.window)
        elif self.keep == 1:
            return CachePolicy()
        else:
            budget = CacheBudget(keep=self.keep, last=self.window)
        scorer = WindowAttention(self.window, self.kernel, self.pool, self.group)
        return CachePolicy((CacheStage(EveryLayer(budget, Moment.PROMPT), scorer, TopSlots(), Evict()),))
