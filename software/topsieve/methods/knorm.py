"""`Knorm`: keys of small norm stay in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.cache.budget import CacheBudget
from topsieve.cache.reducers.evict import Evict
from topsieve.cache.roles import CacheOnly, CachePolicy, CacheStage, Moment
from topsieve.cache.schedules import EveryLayer
from topsieve.cache.scorers.small_key import SmallKey
from topsieve.cache.selectors.top_slots import TopSlots
from topsieve.methods.checks import check_choice, check_count, check_share
from topsieve.reduction.budget import Rounding
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class Knorm(CacheOnly):
    """L2 compression: after the prompt, the slots with the smallest key norms stay in the cache.

    Devoto et al., EMNLP 2024; specification `methods-more`, section C.

    Once, after the prompt, each key-value head keeps the keys of smallest Euclidean norm. Signals: keys.

    Differences from the published code: survivors stay in ascending order, and counts round down unless `variant` says
    "official", which rounds them up.

    Parameters
    ----------
    keep : slots, as a share of the prompt's tokens, in (0, 1].
    skip_layers : layers near the input that keep everything (the paper: 2).
    prune_after : shorter prompts are left alone.
    variant : "paper" or "official".
    """

    name: ClassVar[str] = "knorm"

    keep: float = 0.5
    skip_layers: int = 2
    prune_after: int = 0
    variant: Literal["paper", "official"] = "paper"

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "skip_layers", self.skip_layers)
        check_count(self.name, "prune_after", self.prune_after)
        check_choice(self.name, "variant", self.variant, ("paper", "official"))

    def cache(self, shape: ModelShape) -> CachePolicy:
        if self.keep == 1:
            return CachePolicy()
        rounding = Rounding.CEIL if self.variant == "official" else Rounding.FLOOR
        budget = CacheBudget(keep=self.keep, rounding=rounding, shortest=self.prune_after)
        schedule = EveryLayer(budget, Moment.PROMPT, skip_first=min(self.skip_layers, shape.layers - 1))
        return CachePolicy((CacheStage(schedule, SmallKey(), TopSlots(), Evict()),))
