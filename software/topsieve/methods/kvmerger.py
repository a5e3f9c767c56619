"""`KvMerger`: successive slots with similar keys become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.cache.budget import CacheBudget
from topsieve.cache.reducers.runs import MergeRuns
from topsieve.cache.roles import CacheOnly, CachePolicy, CacheStage, Moment
from topsieve.cache.schedules import EveryLayer
from topsieve.cache.scorers.received_attention import ReceivedAttention
from topsieve.cache.selectors.run_pivots import RunPivots
from topsieve.methods.checks import check_range, check_share
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class KvMerger(CacheOnly):
    """KVMerger: successive slots with similar keys become one, at the place of the most attended.

    Wang et al., 2024; specification `methods-more`, section C.

    Once, after the prompt. The newest slots and the heavy hitters stay alone. In the rest, successive keys whose cosine
    is over the threshold form a run; keys and values of a run are averaged with Gaussian weights around its most
    attended slot. Signals: column sums of the probabilities, keys.

    Differences from the paper: runs alone give no exact count, so pivots with the least attention go, with their runs,
    until `keep` holds. The Gaussian's width is the mean distance to the pivot.

    Parameters
    ----------
    keep : slots at most, as a share of the prompt's tokens, in (0, 1].
    recent_share : share of the slots that are the newest.
    heavy_share : share of the slots that are heavy hitters.
    threshold : cosine over which a run goes on.
    """

    name: ClassVar[str] = "kvmerger"

    keep: float = 0.5
    recent_share: float = 0.25
    heavy_share: float = 0.25
    threshold: float = 0.75

    def __post_init__(self) -> None:
        for field in ("recent_share", "heavy_share"):
            check_range(self.name, field, getattr(self, field), 0, 1)
        check_share(self.name, "keep", self.keep)
        check_range(self.name, "threshold", self.threshold, -1, 1)

    def cache(self, shape: ModelShape) -> CachePolicy:
        if self.keep == 1:
            return CachePolicy()
        schedule = EveryLayer(CacheBudget(keep=self.keep, last_share=self.recent_share), Moment.PROMPT)
        selector = RunPivots(self.threshold, self.heavy_share)
        return CachePolicy((CacheStage(schedule, ReceivedAttention(), selector, MergeRuns()),))
