"""`PruMerge`: keep the tokens that stand out, and let them take up their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.methods.checks import check_count, check_flag, check_share
from topsieve.methods.output_budget import output_budget
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.reducers import NeighbourSums
from topsieve.reduction.roles import ModelShape, Site, Stage
from topsieve.reduction.schedules import OneStep
from topsieve.reduction.scorers import JointClassAttention
from topsieve.reduction.selectors import Outliers


@dataclass(frozen=True)
class PruMerge(PlainAttention):
    """PruMerge and PruMerge+: outliers of the attention of CLS stay and take up their neighbours.

    Shang et al., ICCV 2025; specification `methods-more`, section B.

    On the vision tower's output, before the projector; attention and keys are those of the tower's last layer, which
    comes after that output, with all heads as one. Each kept token adds its nearest others, weighted with their
    attention; all that were not kept become one more token. Signals: the joint CLS row, keys.

    Differences from the published code: survivors stay in ascending order; the share of outliers is each image's own,
    not the batch's, and at least one token stays.

    Parameters
    ----------
    keep : share of the patches that stay by score, in (0, 1]; none takes the share of outliers, over Q3 + 1.5 (Q3 - Q1).
        With `plus`, evenly spaced ones come on top, fewer with a share given than with outliers.
    plus : PruMerge+; else PruMerge.
    neighbours : how many each kept token takes up.
    """

    name: ClassVar[str] = "prumerge"

    keep: float | None = None
    plus: bool = True
    neighbours: int = 32

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_flag(self.name, "plus", self.plus)
        check_count(self.name, "neighbours", self.neighbours, low=1)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1:
            return ()
        budget = output_budget(shape, 1 if self.keep is None else self.keep)
        last = shape.layers + shape.tail_layers - 1
        selector = Outliers(adaptive=self.keep is None, spaced=self.plus)
        reducer = NeighbourSums(self.neighbours, budget.protect_first)
        return (Stage(OneStep(Site.OUTPUT, last, budget), JointClassAttention(), selector, reducer),)
