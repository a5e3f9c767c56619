"""`PyramidDrop`: the language model sees fewer image tokens the deeper it gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.methods.checks import check_count, check_share
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.budget import Base, Budget
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import ModelShape, Site, Stage, Tower
from topsieve.reduction.schedules import ListedLayers
from topsieve.reduction.scorers import NextLastQuery
from topsieve.reduction.selectors import TopScores


@dataclass(frozen=True)
class PyramidDrop(PlainAttention):
    """PyramidDrop: drop image tokens after each quarter of the language model.

    Xing et al., CVPR 2025; specification `methods-more`, section B.

    In the prefill, after 1/4, 2/4 and 3/4 of the layers (8, 16, 24 of 32), image tokens stay by what the next layer's
    query of the last token attends to, mean over heads: int(n0 x share) of the n0 initial ones, with shares in equal
    steps (0.5, 0.25, 0.125). Those that stay are numbered anew. Signals: the next layer's rotated queries and keys. In a
    model of one part, all tokens but the last are taken for image tokens.

    Parameters
    ----------
    keep : share of the image tokens left after the last step, in (0, 1]; counts round down. 0.125 is the paper's.
    layers : after how many layers; empty takes the quarters.
    """

    name: ClassVar[str] = "pyramiddrop"

    keep: float = 0.125
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        for layer in self.layers:
            check_count(self.name, "layers", layer, low=1)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        after = self.layers or tuple(shape.layers * quarter // 4 for quarter in (1, 2, 3))
        # The next layer's projections are asked, so there must be one.
        layers = sorted({max(layer, 1) - 1 for layer in after if max(layer, 1) < shape.layers})
        if self.keep == 1 or not layers:
            return ()
        shares = [round(self.keep ** ((step + 1) / len(layers)), 12) for step in range(len(layers))]
        last = 1 if shape.tower is None else 0
        budgets = [
            Budget(ratio=share, base=Base.INITIAL, protect_last=last, ratio_excludes_protected=True) for share in shares
        ]
        schedule = ListedLayers(Site.LAYER, tuple(zip(layers, budgets, strict=True)))
        return (Stage(schedule, NextLastQuery(), TopScores(), Drop(), tower=Tower.LANGUAGE, renumber=True),)
