"""`Dart`: keep the image tokens that repeat a few pivots least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.methods.checks import check_count, check_share
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.budget import Budget
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import ModelShape, Signal, Site, Stage, Tower
from topsieve.reduction.schedules import OneStep
from topsieve.reduction.scorers import KeyLength
from topsieve.reduction.selectors import DissimilarToPivots


@dataclass(frozen=True)
class Dart(PlainAttention):
    """DART: keep a few pivots among the image tokens, and those that duplicate the pivots least.

    Wen et al., EMNLP 2025; specification `methods-more`, section B.

    In the prefill, before layer k of the language model. Pivots have the longest keys in layer k - 1 (1-norm), some of
    the image and some of the text; each takes an equal number of the image tokens least similar to it. Positions are
    kept. Signals: keys, hidden states under the last normalisation. In a model of one part, all tokens but the last are
    taken for image tokens.

    Differences from the published code: it goes through the pivots in no fixed order; here by falling length, the
    image's first.

    Parameters
    ----------
    keep : share of the image tokens that the pivots take, 1 - the paper's R, in (0, 1]; each takes its part rounded
        down, and the image's pivots come on top.
    k : the layer before which tokens go.
    image_pivots, text_pivots : how many.
    """

    name: ClassVar[str] = "dart"

    keep: float = 0.5
    k: int = 2
    image_pivots: int = 4
    text_pivots: int = 4

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "k", self.k, low=1)
        check_count(self.name, "image_pivots", self.image_pivots, low=1)
        check_count(self.name, "text_pivots", self.text_pivots)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1:
            return ()
        last = 1 if shape.tower is None else 0
        budget = Budget(ratio=self.keep, protect_last=last, ratio_excludes_protected=True)
        schedule = OneStep(Site.LAYER, min(self.k, shape.layers) - 1, budget)
        scorer = KeyLength(frozenset({Signal.FINAL_HIDDEN}))
        selector = DissimilarToPivots(self.image_pivots, self.text_pivots)
        return (Stage(schedule, scorer, selector, Drop(), tower=Tower.LANGUAGE),)
