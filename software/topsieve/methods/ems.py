"""`Ems`: evict what is irrelevant, merge what is left over into similar slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.cache.budget import CacheBudget
from topsieve.cache.grouping import GROUPS
from topsieve.cache.reducers.classes import MergeClasses
from topsieve.cache.roles import CacheOnly, CachePolicy, CacheSelector, CacheStage
from topsieve.cache.schedules import EveryLayer
from topsieve.cache.scorers.global_local import GlobalLocal
from topsieve.cache.selectors.joint_slots import JointSlots
from topsieve.cache.selectors.top_slots import TopSlots
from topsieve.methods.checks import check_choice, check_count, check_flag, check_odd, check_range, check_share
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class Ems(CacheOnly):
    """EMS: evict what is irrelevant and merge what is left over into similar slots, head by head.

    Li et al., 2024; specification `methods-text`, section 1, which completes what the paper's public text leaves open.

    A slot's score is the larger of its attention from all queries and from the newest ones, brought to one mean. The
    best slots and the newest are centres; the next best go to the centre of the most similar key and value, or nowhere
    if none is similar enough; the rest is evicted. Signals: column sums and last rows of the probabilities, keys,
    values.

    Parameters
    ----------
    keep : slots, as a share of the prompt's tokens, in (0, 1]; the window is inside.
    budget : slots, the paper's parameter (256); replaces `keep`.
    window : newest queries of the local score, and newest slots that stay and take no merges.
    gamma : candidates for merging, as a multiple of the centres before the window.
    tau : similarity from which a candidate is merged.
    pool : window of a maximum pooling of the scores; odd, 1 for none.
    group : how the query heads of a key-value head are joined: sum, mean or max.
    merge_norm : length of a merged key: "centre" or "mean".
    clamp_negative_cos : two negative cosines make no similarity.
    before_rotation : compare keys without their rotary positions.
    head_budget : "uniform", or "adaptive": heads share their slots as in `adakv`.
    """

    name: ClassVar[str] = "ems"

    keep: float = 0.5
    budget: int | None = None
    window: int = 32
    gamma: float = 1.0
    tau: float = 0.6
    pool: int = 1
    group: Literal["sum", "mean", "max"] = "mean"
    merge_norm: Literal["centre", "mean"] = "centre"
    clamp_negative_cos: bool = False
    before_rotation: bool = False
    head_budget: Literal["uniform", "adaptive"] = "uniform"

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "budget", self.budget, low=1)
        check_count(self.name, "window", self.window, low=1)
        check_range(self.name, "gamma", self.gamma, 0)
        check_range(self.name, "tau", self.tau, -1, 2)
        check_odd(self.name, "pool", self.pool)
        check_choice(self.name, "group", self.group, GROUPS)
        check_choice(self.name, "merge_norm", self.merge_norm, ("centre", "mean"))
        check_flag(self.name, "clamp_negative_cos", self.clamp_negative_cos)
        check_flag(self.name, "before_rotation", self.before_rotation)
        check_choice(self.name, "head_budget", self.head_budget, ("uniform", "adaptive"))

    def cache(self, shape: ModelShape) -> CachePolicy:
        if self.budget is not None:
            budget = CacheBudget(capacity=self.budget, last=self.window)
        elif self.keep == 1:
            return CachePolicy()
        else:
            budget = CacheBudget(keep=self.keep, last=self.window)
        selector: CacheSelector = TopSlots() if self.head_budget == "uniform" else JointSlots()
        reducer = MergeClasses(
            self.window, self.gamma, self.tau, self.merge_norm, self.clamp_negative_cos, self.before_rotation
        )
        scorer = GlobalLocal(self.window, self.group, self.pool)
        return CachePolicy((CacheStage(EveryLayer(budget), scorer, selector, reducer),))
