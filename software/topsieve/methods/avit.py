"""`AViT`: tokens halt by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.methods.checks import check_range
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.budget import Budget
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import ModelShape, Site, Stage
from topsieve.reduction.schedules import ListedLayers
from topsieve.reduction.scorers import Halting
from topsieve.reduction.selectors import Unhalted


@dataclass(frozen=True)
class AViT(PlainAttention):
    """A-ViT: a token halts when its halting scores add up to 1.

    Yin et al., CVPR 2022; specification `methods-more`, section A.

    After every layer each token adds sigmoid(gate_scale x its first channel - gate_center) to its halting score and
    stops when that is over 1 - margin. The model's output is, for every token, the sum of its hidden states over the
    layers, weighted with the scores (the last one with what is left to 1), so all tokens come out. How many stay in
    each layer depends on the data; there is no `keep`. Signals: hidden states.

    Differences from the published code: halted tokens are gathered away, not masked; a sequence never becomes empty.
    A model must be trained for it.

    Parameters
    ----------
    gate_scale : factor of the first channel.
    gate_center : taken from it (30 for the paper's tiny model, 75 for the small one).
    margin : the paper's epsilon.
    """

    name: ClassVar[str] = "a-vit"

    gate_scale: float = 10.0
    gate_center: float = 30.0
    margin: float = 0.01

    def __post_init__(self) -> None:
        check_range(self.name, "margin", self.margin, 0, 1)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        # The tokens that stay follow from the scores.
        schedule = ListedLayers(
            Site.LAYER, tuple((layer, Budget(threshold=self.margin)) for layer in range(shape.layers))
        )
        scorer = Halting(self.gate_scale, self.gate_center, self.margin)
        return (Stage(schedule, scorer, Unhalted(self.margin), Drop(), accumulates=True, depth_weighted=True),)
