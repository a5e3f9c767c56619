"""`VisionZip`: dominant image tokens stay, the others are merged into few contextual ones."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from topsieve.methods.checks import check_count, check_share
from topsieve.methods.output_budget import output_budget
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.reducers import AddMean
from topsieve.reduction.roles import ModelShape, Signal, Site, Stage
from topsieve.reduction.schedules import OneStep
from topsieve.reduction.scorers import ClassAttention
from topsieve.reduction.selectors import DominantContextual

# 54 + 10, 108 + 20, 162 + 30 in the paper.
CONTEXTUAL_SHARE = Fraction(10, 64)


@dataclass(frozen=True)
class VisionZip(PlainAttention):
    """VisionZip: keep the image tokens that CLS attends to, merge the others into few contextual tokens.

    Yang et al., CVPR 2025; specification `methods-more`, section B.

    On the vision tower's output, before the projector. Dominant tokens: most attention of CLS in the layer whose output
    is used. Of the others, evenly spaced ones become contextual tokens: themselves plus the mean of the tokens whose
    keys (mean over heads) are most like theirs. Signals: the CLS row of the probabilities, keys.

    Differences from the published code: it puts the contextual tokens behind the dominant ones, here all stand where
    they were; where the language model sees no class token, `dominant` counts patches only.

    Parameters
    ----------
    keep : share of the image tokens that stays, in (0, 1]; counts round down. 10 of 64 of them are contextual.
    dominant : dominant tokens, a class token included, the paper's parameter (54, 108, 162); replaces `keep`.
    contextual : contextual tokens, with `dominant` (10, 20, 30).
    """

    name: ClassVar[str] = "visionzip"

    keep: float = 0.5
    dominant: int | None = None
    contextual: int = 10

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "dominant", self.dominant, low=1)
        check_count(self.name, "contextual", self.contextual)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1 and self.dominant is None:
            return ()
        tokens = None
        if self.dominant is not None:
            tokens = self.dominant + self.contextual - (1 if shape.class_token else 0)
        selector = DominantContextual(None if self.dominant is None else self.contextual, CONTEXTUAL_SHARE)
        schedule = OneStep(Site.OUTPUT, shape.layers - 1, output_budget(shape, self.keep, tokens))
        return (Stage(schedule, ClassAttention(frozenset({Signal.KEY})), selector, AddMean()),)
