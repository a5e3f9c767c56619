"""`FastV`: drop image tokens after the second layer of the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.methods.checks import check_count, check_share
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.budget import Budget, Rounding
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import ModelShape, Site, Stage, Tower
from topsieve.reduction.schedules import OneStep
from topsieve.reduction.scorers import LastRowAttention
from topsieve.reduction.selectors import TopScores


@dataclass(frozen=True)
class FastV(PlainAttention):
    """FastV: keep the image tokens that the last token attends to after two layers of the language model.

    Chen et al., ECCV 2024; specification `methods-more`, section B.

    In the prefill, before layer k of the language model, image tokens stay by the last query's probabilities in layer
    k - 1, mean over heads; text always stays. Positions are kept. Signals: the last row of the probabilities. In a model
    of one part, all tokens but the last are taken for image tokens.

    Parameters
    ----------
    keep : share of the image tokens that stays, 1 - the paper's R, in (0, 1]; counts round half to even.
    k : the layer before which they go; a shallower model drops them after its last layer.
    """

    name: ClassVar[str] = "fastv"

    keep: float = 0.5
    k: int = 2

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "k", self.k, low=1)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1:
            return ()
        budget = Budget(
            ratio=self.keep,
            rounding=Rounding.HALF_EVEN,
            protect_last=1 if shape.tower is None else 0,
            ratio_excludes_protected=True,
        )
        schedule = OneStep(Site.LAYER, min(self.k, shape.layers) - 1, budget)
        return (Stage(schedule, LastRowAttention(), TopScores(), Drop(), tower=Tower.LANGUAGE),)
