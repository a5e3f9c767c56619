"""`Ltp`: prune what falls under a threshold that rises with depth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from topsieve.methods.checks import check_range, check_share
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
    keep : a wish for the share left after the last layer, in (0, 1]; replaces the thresholds. It stands for the rule
        of thumb that attention received, in units of the uniform share 1 / N, is distributed exponentially with mean
        1: a share `keep` of it lies above -ln(keep), which becomes the threshold of the last layer, in those units.
        What is really left differs with the model: use `calibrate` for thresholds that fit one.
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
            if self.keep == 1 or shape.layers == 1:
                return ()
            final = -math.log(self.keep) * shape.layers / (shape.layers - 1)
            schedule = ThresholdRamp(Site.MID_LAYER, final, budget)
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


def calibrate(scores: Tensor, keep: float) -> float:
    """The `final_token_threshold` that leaves a share `keep` of sample tokens alive after the last layer.

    Exact for the sample under the assumption that dropping tokens does not change the scores of the others: token t
    outlives all L layers under a final threshold of up to min over l >= 1 of scores[t, l] x L / l.

    Parameters
    ----------
    scores : float [T, L], mean attention of T sample tokens in each layer of the dense model (`MeanAttention`), L >= 2.
    keep : share of the tokens to leave, in (0, 1].

    Raises
    ------
    InputError
        `keep` is not a share.
    ValueError
        `scores` has another shape.
    """
    check_share("ltp", "keep", keep)
    if scores.dim() != 2 or scores.shape[0] < 1 or scores.shape[1] < 2:
        raise ValueError(f"scores must be [tokens >= 1, layers >= 2], got {tuple(scores.shape)}")
    layers = scores.shape[1]
    depth = torch.arange(1, layers, dtype=scores.dtype, device=scores.device)
    outlives = (scores[:, 1:] * layers / depth).amin(-1).sort(descending=True).values
    return float(outlives[max(1, round(keep * len(outlives))) - 1])
