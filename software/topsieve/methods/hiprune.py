"""`HiPrune`: anchors from a middle layer, their neighbours, and registers from a deep layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.methods.checks import check_count, check_range, check_share
from topsieve.methods.output_budget import output_budget
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import ModelShape, Site, Stage, Step
from topsieve.reduction.schedules import LookThenChoose
from topsieve.reduction.scorers import AnchorsRegisters
from topsieve.reduction.selectors import TopScores

# Layer 9, counted from 1, of the 23 whose output LLaVA-1.5 uses.
OBJECT_LAYER, DEPTH = 8, 23


@dataclass(frozen=True)
class HiPrune(PlainAttention):
    """HiPrune: keep tokens at objects, their neighbours, and the tokens that a deep layer looks at.

    Liu et al., ACL Findings 2026; specification `methods-vision`, section 4.1 (LLaVA-1.5).

    Between projector and language model. Anchors are the tokens that receive most attention in a middle layer of the
    tower, mean over heads and all queries; they and the tokens beside, over and under them stay. The rest of the budget
    goes to those that receive most in the layer whose output is used. Signals: column sums of the probabilities.

    Differences from the published code: the raster is taken for square, and the middle layer is scaled to the depth.

    Parameters
    ----------
    keep : share of the image tokens that stays, in (0, 1]; counts round down.
    tokens : how many stay, the paper's parameter (192, 128, 64); replaces `keep`.
    alpha : share of the kept tokens that are anchors or neighbours; a fifth of it, rounded half to even, are anchors.
    object_layer : the middle layer, counted from 0; none scales layer 8 of 23 to the depth.
    """

    name: ClassVar[str] = "hiprune"

    keep: float = 0.5
    tokens: int | None = None
    alpha: float = 0.1
    object_layer: int | None = None

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "tokens", self.tokens, low=1)
        check_range(self.name, "alpha", self.alpha, 0, 1)
        check_count(self.name, "object_layer", self.object_layer)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1 and self.tokens is None:
            return ()
        scaled = shape.layers * OBJECT_LAYER // DEPTH
        middle = min(scaled if self.object_layer is None else self.object_layer, shape.layers - 1)
        budget = output_budget(shape, self.keep, self.tokens)
        schedule = LookThenChoose(middle, Step(Site.PROJECTED, shape.layers - 1, budget))
        scorer = AnchorsRegisters(middle, budget, self.alpha)
        return (Stage(schedule, scorer, TopScores(), Drop(), accumulates=True),)
