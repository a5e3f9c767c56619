"""`EViT`: keep what the class token attends to, fuse the rest into one token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from topsieve.methods.checks import check_count, check_flag, check_share
from topsieve.reduction.budget import Base, Budget, Rounding
from topsieve.reduction.reducers import Drop, FuseRest
from topsieve.reduction.roles import AttentionPolicy, ModelShape, Site, Stage
from topsieve.reduction.schedules import ListedLayers
from topsieve.reduction.scorers import ClassAttention
from topsieve.reduction.selectors import TopScores


@dataclass(frozen=True)
class EViT:
    """EViT: keep what the class token attends to, fuse the rest into one token.

    Liang et al., ICLR 2022; specification `methods-more`, section A.

    In three layers, after attention, the tokens that CLS attends to most stay: ceil(rate x (N - 1)) of the current
    N - 1 others (an earlier fused token is one of them). Signals: the CLS row of the probabilities.

    Differences from the published code: survivors stay in ascending order, not in score order; `keep` counts by the
    initial tokens.

    Parameters
    ----------
    keep : share of the initial tokens left after the last of the steps, in (0, 1]. The steps keep equal shares of each
        other; counts round down and include the fused token, but CLS and the fused token always stay.
    keep_rate : rate of each step, the paper's parameter; replaces `keep`.
    layers : where; empty takes the layers at one, two and three quarters of the depth (3, 6, 9 of 12).
    fuse_token : the rest becomes one more token, its sum weighted by the CLS row (not normalised); else it is dropped.
    """

    name: ClassVar[str] = "evit"

    keep: float = 0.5
    keep_rate: float | None = None
    layers: tuple[int, ...] = ()
    fuse_token: bool = True

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_share(self.name, "keep_rate", self.keep_rate)
        check_flag(self.name, "fuse_token", self.fuse_token)
        for layer in self.layers:
            check_count(self.name, "layers", layer)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        chosen = self.layers or tuple(shape.layers * quarter // 4 for quarter in (1, 2, 3))
        layers = sorted({layer for layer in chosen if layer < shape.layers})
        if not layers or (self.keep if self.keep_rate is None else self.keep_rate) == 1:
            return ()
        if self.keep_rate is None:
            whole = Budget(ratio=1, base=Base.INITIAL, protect_first=1, reserve=1 if self.fuse_token else 0)
            budgets = [replace(whole, ratio=self.keep ** ((step + 1) / len(layers))) for step in range(len(layers))]
        else:
            each = Budget(ratio=self.keep_rate, rounding=Rounding.CEIL, protect_first=1, ratio_excludes_protected=True)
            budgets = [each] * len(layers)
        schedule = ListedLayers(Site.MID_LAYER, tuple(zip(layers, budgets, strict=True)))
        return (Stage(schedule, ClassAttention(), TopScores(), FuseRest() if self.fuse_token else Drop()),)

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        return AttentionPolicy()
