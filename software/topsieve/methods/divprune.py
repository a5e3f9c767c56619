"""`DivPrune`: keep image tokens that differ from each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.methods.checks import check_share
from topsieve.methods.output_budget import output_budget
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.budget import Rounding
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import ModelShape, Signal, Site, Stage
from topsieve.reduction.schedules import OneStep
from topsieve.reduction.scorers import Equal
from topsieve.reduction.selectors import Diverse


@dataclass(frozen=True)
class DivPrune(PlainAttention):
    """DivPrune: keep the image tokens whose smallest distance from each other is largest.

    Alvar et al., CVPR 2025; specification `methods-more`, section B.

    Between projector and language model: first the token farthest from its nearest other one, by 1 - cosine, then again
    and again the one farthest from all that were picked. No attention is looked at. Signals: hidden states.

    Parameters
    ----------
    keep : share of the image tokens that stays, in (0, 1]; counts round half to even.
    """

    name: ClassVar[str] = "divprune"

    keep: float = 0.5

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1:
            return ()
        budget = output_budget(shape, self.keep, rounding=Rounding.HALF_EVEN)
        schedule = OneStep(Site.PROJECTED, shape.layers - 1, budget)
        return (Stage(schedule, Equal(frozenset({Signal.HIDDEN})), Diverse(), Drop()),)
