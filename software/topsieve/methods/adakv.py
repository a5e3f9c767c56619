"""`AdaKv`: heads share their slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.cache.reducers.evict import Evict
from topsieve.cache.roles import CachePolicy, CacheStage, Moment
from topsieve.cache.schedules import EveryLayer
from topsieve.cache.selectors.joint_slots import JointSlots
from topsieve.cache.window_method import WindowMethod
from topsieve.methods.checks import check_count, check_flag, check_range
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class AdaKv(WindowMethod):
    """Ada-KV: SnapKV's scores, with slots that the heads of a layer share out among themselves.

    Feng et al., 2024; specification `methods-more`, section C.

    Once, after the prompt, the slots before the window compete over all heads of a layer; a part of the budget is even.
    Heads end with different numbers of slots, and only what they keep is stored. Signals: the last rows of the
    probabilities.

    Differences from the published code: as `snapkv`.

    Parameters
    ----------
    keep : slots, as a share of the prompt's tokens, mean over the heads, in (0, 1]; the window is inside.
    capacity : slots, the published code's parameter; replaces `keep`.
    alpha : part of the budget that every head has, in [0, 1].
    normalised : heads compete with their scores times the share that their best slots, as many as the even budget has,
        have of their scores.
    skip_layers : layers near the input whose heads keep even shares.
    window : queries that score, and newest slots that stay.
    kernel : of the pooling along the slots; odd.
    pool : "average" or "maximum".
    group : how the query heads of a key-value head are joined: sum, mean or max.
    """

    name: ClassVar[str] = "adakv"

    keep: float = 0.5
    capacity: int | None = None
    alpha: float = 0.2
    normalised: bool = False
    skip_layers: int = 0
    window: int = 32
    kernel: int = 7
    pool: Literal["average", "maximum"] = "maximum"
    group: Literal["sum", "mean", "max"] = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self.name, "alpha", self.alpha, 0, 1)
        check_flag(self.name, "normalised", self.normalised)
        check_count(self.name, "skip_layers", self.skip_layers)

    def cache(self, shape: ModelShape) -> CachePolicy:
        budget = self.budget()
        if budget is None:
            return CachePolicy()
        scorer = self.scorer(mean=True)
        stages = []
        even = min(self.skip_layers, shape.layers)
        if even:
            schedule = EveryLayer(budget, Moment.PROMPT, skip_last=shape.layers - even)
            stages.append(CacheStage(schedule, scorer, JointSlots(1.0), Evict()))
        if even < shape.layers:
            schedule = EveryLayer(budget, Moment.PROMPT, skip_first=even)
            stages.append(CacheStage(schedule, scorer, JointSlots(self.alpha, self.normalised), Evict()))
        return CachePolicy(tuple(stages))
