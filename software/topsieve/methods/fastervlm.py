"""`FasterVlm`: keep the image tokens that the class token attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.methods.checks import check_count, check_share
from topsieve.methods.output_budget import output_budget
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import ModelShape, Site, Stage
from topsieve.reduction.schedules import OneStep
from topsieve.reduction.scorers import ClassAttention
from topsieve.reduction.selectors import TopScores


@dataclass(frozen=True)
class FasterVlm(PlainAttention):
    """FasterVLM: keep the image tokens that the vision tower's class token attends to.

    Zhang et al., 2024; specification `methods-more`, section B.

    Between projector and language model, the tokens stay that CLS attends to most, mean over heads, in the layer whose
    output the language model sees. Signals: the CLS row of the probabilities.

    Parameters
    ----------
    keep : share of the image tokens that stays, in (0, 1]; counts round down.
    tokens : how many stay, the paper's parameter (144, 58, 29); replaces `keep`.
    """

    name: ClassVar[str] = "fastervlm"

    keep: float = 0.5
    tokens: int | None = None

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "tokens", self.tokens, low=1)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1 and self.tokens is None:
            return ()
        budget = output_budget(shape, self.keep, self.tokens)
        schedule = OneStep(Site.PROJECTED, shape.layers - 1, budget)
        return (Stage(schedule, ClassAttention(), TopScores(), Drop()),)
