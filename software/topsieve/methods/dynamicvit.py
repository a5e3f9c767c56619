"""`DynamicViT`: a learned predictor drops tokens in three stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.methods.checks import check_count, check_share
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.budget import Base, Budget
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import ModelShape, Site, Stage
from topsieve.reduction.schedules import ListedLayers
from topsieve.reduction.scorers import Predictor
from topsieve.reduction.selectors import TopScores


@dataclass(frozen=True)
class DynamicViT(PlainAttention):
    """DynamicViT: learned predictors drop tokens before three of the layers.

    Rao et al., NeurIPS 2021; specification `methods-more`, section A.

    Before the layers at one, two and three quarters of the depth (3, 6, 9 of 12), a small network scores each token
    behind CLS from its own features and the mean over the live ones; int(N0 x share) of the N0 initial tokens behind
    CLS stay, with shares in equal steps (0.7, 0.49, 0.343). Signals: hidden states.

    Differences from the published code: survivors stay in ascending order, not in score order. Nothing is trained here:
    without `weights` the networks are as before training, and choose by chance.

    Parameters
    ----------
    keep : share of the initial tokens behind CLS left after the last stage, in (0, 1]; counts round down.
    keep_rate : share that each stage keeps of the one before, the paper's parameter (0.7); replaces `keep`.
    layers : before which layers; empty takes the quarters of the depth.
    weights : safetensors file with the predictors of the published code (`score_predictor.0.in_conv.0.weight`, ...).
    seed : of the untrained networks.
    """

    name: ClassVar[str] = "dynamicvit"

    keep: float = 0.5
    keep_rate: float | None = None
    layers: tuple[int, ...] = ()
    weights: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_share(self.name, "keep_rate", self.keep_rate)
        check_count(self.name, "seed", self.seed)
        for layer in self.layers:
            check_count(self.name, "layers", layer, low=1)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if (self.keep if self.keep_rate is None else self.keep_rate) == 1:
            return ()
        before = self.layers or tuple(shape.layers * quarter // 4 for quarter in (1, 2, 3))
        layers = sorted({max(layer, 1) - 1 for layer in before if layer < shape.layers})
        rate = self.keep ** (1 / len(layers)) if self.keep_rate is None else self.keep_rate
        shares = [round(rate ** (step + 1), 12) for step in range(len(layers))]
        if self.keep_rate is None:
            shares[-1] = self.keep
        budgets = [
            Budget(ratio=share, base=Base.INITIAL, protect_first=1, ratio_excludes_protected=True) for share in shares
        ]
        schedule = ListedLayers(Site.LAYER, tuple(zip(layers, budgets, strict=True)))
        return (Stage(schedule, Predictor(tuple(layers), self.weights, self.seed), TopScores(), Drop()),)
