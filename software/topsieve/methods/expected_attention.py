"""`ExpectedAttention`: what coming queries are expected to attend to stays in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.cache.budget import CacheBudget
from topsieve.cache.reducers.evict import Evict
from topsieve.cache.roles import CacheOnly, CachePolicy, CacheStage, Moment
from topsieve.cache.schedules import EveryLayer
from topsieve.cache.scorers.expected_attention import FutureAttention
from topsieve.cache.selectors.top_slots import TopSlots
from topsieve.methods.checks import check_count, check_range, check_share
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class ExpectedAttention(CacheOnly):
    """Expected Attention: slots stay that coming queries would attend to, judged by those so far.

    Devoto et al., 2025; specification `methods-more`, section C.

    Once, after the prompt: queries are taken for normally distributed, with the prompt's mean and covariance, turned to
    the positions to come; a slot's score is its expected attention times the length of its value. Signals: queries,
    keys, values.

    Parameters
    ----------
    keep : slots, as a share of the prompt's tokens, in (0, 1].
    future : positions to come that are averaged over.
    sinks : first slots, which stay and are left out of the statistics.
    epsilon : added to the expected attention (0.01 in the published benchmark).
    """

    name: ClassVar[str] = "expected-attention"

    keep: float = 0.5
    future: int = 512
    sinks: int = 4
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "future", self.future, low=1)
        check_count(self.name, "sinks", self.sinks)
        check_range(self.name, "epsilon", self.epsilon, 0)

    def cache(self, shape: ModelShape) -> CachePolicy:
        if self.keep == 1:
            return CachePolicy()
        schedule = EveryLayer(CacheBudget(keep=self.keep, first=self.sinks), Moment.PROMPT)
        scorer = FutureAttention(self.future, self.sinks, self.epsilon)
        return CachePolicy((CacheStage(schedule, scorer, TopSlots(), Evict()),))
