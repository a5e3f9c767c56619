"""`Pooling`: neighbouring tokens are averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.methods.checks import check_flag, check_share
from topsieve.reduction.budget import Base, Budget
from topsieve.reduction.reducers import MergeTo
from topsieve.reduction.roles import AttentionPolicy, ModelShape, Site, Stage
from topsieve.reduction.schedules import LinearRamp
from topsieve.reduction.scorers import Equal
from topsieve.reduction.selectors import Stride


@dataclass(frozen=True)
class Pooling:
    """Average pooling of neighbours: the merging baseline that looks at nothing.

    It runs on SpAtten's linear schedule. Signals: none. Token 0 (CLS) takes no part; averages are weighted by size,
    so a token that stands for three counts three times. A run stands at its first token.

    Parameters
    ----------
    keep : share of the initial tokens left after the last layer, in (0, 1]; counts round down, but CLS and one more
        always stay.
    proportional : add log(size) to the attention scores, as ToMe does.
    """

    name: ClassVar[str] = "pooling"

    keep: float = 0.5
    proportional: bool = False

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_flag(self.name, "proportional", self.proportional)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1:
            return ()
        budget = Budget(ratio=1, base=Base.INITIAL, protect_first=1, minimum=2)
        schedule = LinearRamp(Site.MID_LAYER, self.keep, budget)
        return (Stage(schedule, Equal(), Stride(), MergeTo()),)

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        return AttentionPolicy(size_bias=self.proportional and self.keep < 1)
