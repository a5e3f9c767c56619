"""`Ltp`: prune what falls under a threshold that rises with depth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from topsieve.methods.checks import check_count, check_range, check_share
from topsieve.reduction.budget import Budget
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import AttentionPolicy, ModelShape, Schedule, Site, Stage
from topsieve.reduction.schedules import ListedLayers, ThresholdRamp
from topsieve.reduction.scorers import MeanAttention
from topsieve.reduction.selectors import AboveThreshold

SMALLEST_THRESHOLD = 1e-5


@dataclass(frozen=True)
class Ltp:
    """Learned Token Pruning: drop tokens whose attention is under a threshold that rises with depth.

    Kim et al., KDD 2022; specification `methods-more`, section A.

    After attention in layer l of L, tokens whose mean attention (over heads and the initial tokens' rows) is under
    max(1e-5, final_token_threshold x l / L) are dropped. How many stay depends on the data. No token is protected; at
    least one stays. Signals: column sums of the probabilities.

    Differences from the published code: tokens are gathered, not masked; the mean divides by the sequence's own
    length, not by the padded one; thresholds are given, not learned here.

    Parameters
    ----------
    keep : a wish for the share left after the last layer, in (0, 1]; replaces the thresholds. By rule of thumb the
        ramp then ends at 1 - keep, in units of the uniform share 1 / N, whatever N. What is really left depends on
        the model and the text; `calibrate` finds the threshold that fits them.
    final_token_threshold : end of the linear ramp (0.01 is the paper's typical value).
    thresholds : learned threshold of each layer; replaces the ramp. Layers beyond the list have none.
    """

    name: ClassVar[str] = "ltp"

    keep: float | None = None
    final_token_threshold: float = 0.01
    thresholds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_range(self.name, "final_token_threshold", self.final_token_threshold, 0)
        for threshold in self.thresholds:
            check_range(self.name, "thresholds", threshold, 0)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        schedule: Schedule
        budget = Budget(threshold=0.0)
        if self.keep is not None:
            if self.keep == 1:
                return ()
            schedule = ThresholdRamp(Site.MID_LAYER, 1 - self.keep, budget)
        elif self.thresholds:
            floored = (max(SMALLEST_THRESHOLD, threshold) for threshold in self.thresholds)
            schedule = ListedLayers(
                Site.MID_LAYER, tuple((layer, Budget(threshold=value)) for layer, value in enumerate(floored))
            )
        else:
            schedule = ThresholdRamp(Site.MID_LAYER, self.final_token_threshold, budget, SMALLEST_THRESHOLD)
        return (Stage(schedule, MeanAttention(relative=self.keep is not None), AboveThreshold(), Drop()),)

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        return AttentionPolicy()


def calibrate(share_left: Callable[[Ltp], float], keep: float, trials: int = 20) -> Ltp:
    """The method whose threshold leaves a share `keep` of sample texts, found by bisection.

    Parameters
    ----------
    share_left : runs the model on the sample under a method and says which share of the tokens is left.
    keep : the share to come close to, in (0, 1].
    trials : runs of the model; each halves the interval in which the logarithm of the threshold lies.

    Returns
    -------
    Of all thresholds tried the one whose share came closest.
    """
    check_share("ltp", "keep", keep)
    check_count("ltp", "trials", trials, low=1)
    low, high = math.log(SMALLEST_THRESHOLD), 0.0
    best, best_miss = Ltp(), math.inf
    for _ in range(trials):
        middle = (low + high) / 2
        method = Ltp(final_token_threshold=math.exp(middle))
        share = share_left(method)
        if abs(share - keep) < best_miss:
            best, best_miss = method, abs(share - keep)
        if share > keep:
            low = middle
        else:
            high = middle
    return best
