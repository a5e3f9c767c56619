"""`Uniform`: evenly spaced tokens stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.methods.checks import check_share
from topsieve.reduction.budget import Base, Budget
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import AttentionPolicy, ModelShape, Site, Stage
from topsieve.reduction.schedules import LinearRamp
from topsieve.reduction.scorers import Equal
from topsieve.reduction.selectors import Stride


@dataclass(frozen=True)
class Uniform:
    """Evenly spaced pruning: the baseline that looks at nothing (for images, plain down-sampling).

    It runs on SpAtten's linear schedule. Signals: none. Token 0 (CLS) stays. Each step spaces evenly over the tokens
    that are left, so the spacing over the initial tokens is even to within rounding.

    Parameters
    ----------
    keep : share of the initial tokens left after the last layer, in (0, 1]; counts round down.
    """

    name: ClassVar[str] = "uniform"

    keep: float = 0.5

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1:
            return ()
        budget = Budget(ratio=1, base=Base.INITIAL, protect_first=1)
        schedule = LinearRamp(Site.MID_LAYER, self.keep, budget)
        return (Stage(schedule, Equal(), Stride(), Drop()),)

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        return AttentionPolicy()
