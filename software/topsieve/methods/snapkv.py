"""`SnapKv`: what the end of the prompt attends to stays in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.cache.reducers.evict import Evict
from topsieve.cache.roles import CachePolicy, CacheStage, Moment
from topsieve.cache.schedules import EveryLayer
from topsieve.cache.selectors.top_slots import TopSlots
from topsieve.cache.window_method import WindowMethod
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class SnapKv(WindowMethod):
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

    def cache(self, shape: ModelShape) -> CachePolicy:
        budget = self.budget()
        if budget is None:
            return CachePolicy()
        return CachePolicy((CacheStage(EveryLayer(budget, Moment.PROMPT), self.scorer(), TopSlots(), Evict()),))
