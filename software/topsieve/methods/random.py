"""`Random`: tokens dropped at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.cache.budget import CacheBudget
from topsieve.cache.reducers.evict import Evict
from topsieve.cache.roles import CachePolicy, CacheStage, Moment
from topsieve.cache.schedules import EveryLayer
from topsieve.cache.scorers.drawn import Drawn
from topsieve.cache.selectors.top_slots import TopSlots
from topsieve.methods.checks import check_count, check_share
from topsieve.reduction.budget import Base, Budget
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import AttentionPolicy, ModelShape, Site, Stage
from topsieve.reduction.schedules import LinearRamp
from topsieve.reduction.scorers import RandomScore
from topsieve.reduction.selectors import TopScores


@dataclass(frozen=True)
class Random:
    """Random pruning: the baseline every method must beat.

    It runs on SpAtten's linear schedule, so that the two differ in the choice of tokens alone. Signals: none. Token 0
    (CLS) stays. The choice depends on seed, layer and position only, so the sequences of a batch lose the same
    positions as long as they are equally long. In a decoder each head of the cache keeps slots drawn by seed, layer, head
    and position, once, after the prompt; the first slot stays.

    Parameters
    ----------
    keep : share of the initial tokens left after the last layer, in (0, 1]; counts round down.
    seed : another seed, another choice.
    """

    name: ClassVar[str] = "random"

    keep: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "seed", self.seed)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1:
            return ()
        budget = Budget(ratio=1, base=Base.INITIAL, protect_first=1)
        schedule = LinearRamp(Site.MID_LAYER, self.keep, budget)
        return (Stage(schedule, RandomScore(self.seed), TopScores(), Drop()),)

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        return AttentionPolicy()

    def cache(self, shape: ModelShape) -> CachePolicy:
        if self.keep == 1:
            return CachePolicy()
        schedule = EveryLayer(CacheBudget(keep=self.keep, first=1), Moment.PROMPT)
        return CachePolicy((CacheStage(schedule, Drawn(self.seed), TopSlots(), Evict()),))
