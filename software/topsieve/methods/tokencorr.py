"""`TokenCorr`: the less a picture repeats itself, the more of its tokens stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.methods.checks import check_choice, check_count, check_range, check_share
from topsieve.methods.output_budget import output_budget
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import ModelShape, Site, Stage, Step
from topsieve.reduction.schedules import LookThenChoose
from topsieve.reduction.scorers import LocalGlobal
from topsieve.reduction.selectors import DensityCount


@dataclass(frozen=True)
class TokenCorr(PlainAttention):
    """After Token-level Correlation-guided Compression: keep as many tokens as do not repeat others.

    Zhang et al., 2024; specification `methods-vision`, section 7. No code is public and no number of the method could be
    read: thresholds, layers and the way of choosing are this package's, so results are of a method "after" the paper's.

    On the vision tower's output. A token is redundant if more than `others` others have keys of a cosine over `alike`; as
    many tokens stay as are not redundant, at least one, by the attention of CLS in a shallow layer plus that in the last
    used one. Signals: the CLS row of the probabilities, keys.

    Parameters
    ----------
    keep : share of the patches that stays, in (0, 1]; none lets the keys decide.
    alike : cosine over which a token repeats another.
    others : how many a token may repeat.
    local_layer : the shallow layer; none takes the one at a quarter of the depth.
    sampling : "top": the best stay; "drawn": tokens are drawn without replacement, with probabilities proportional to
        their attention.
    """

    name: ClassVar[str] = "tokencorr"

    keep: float | None = None
    alike: float = 0.9
    others: int = 1
    local_layer: int | None = None
    sampling: Literal["top", "drawn"] = "top"

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_range(self.name, "alike", self.alike, -1, 1)
        check_count(self.name, "others", self.others)
        check_count(self.name, "local_layer", self.local_layer)
        check_choice(self.name, "sampling", self.sampling, ("top", "drawn"))

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1:
            return ()
        last = shape.layers - 1
        local = min(shape.layers // 4 if self.local_layer is None else self.local_layer, max(last - 1, 0))
        budget = output_budget(shape, 1 if self.keep is None else self.keep)
        schedule = LookThenChoose(local, Step(Site.OUTPUT, last, budget))
        selector = DensityCount(last, self.keep is None, self.alike, self.others, self.sampling)
        return (Stage(schedule, LocalGlobal(), selector, Drop(), accumulates=True),)
