"""`Folder`: fold the tokens of one late layer until few are left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.methods.checks import check_choice, check_count, check_range, check_share
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.budget import Base, Budget
from topsieve.reduction.reducers import MergeTo
from topsieve.reduction.roles import ModelShape, Signal, Site, Stage
from topsieve.reduction.schedules import ListedLayers
from topsieve.reduction.scorers import Equal
from topsieve.reduction.selectors import Bipartite

# The published code's factor of alpha.
PENALTY = 100.0
# Each fold leaves at least half: after ten of them a thousandth.
MOST_FOLDS = 10


@dataclass(frozen=True)
class Folder(PlainAttention):
    """Folder: Turbo's merging, all of it in the last layer whose output is used, fold after fold.

    Wang et al., ICCV 2025; specification `methods-vision`, section 6.2.

    A fold merges at most half of the tokens; its keys and attention are merged with them before the next fold. Signals:
    keys, the CLS row of the probabilities.

    Differences from the published code: slots leave in ascending order unless `order` says "paper"; the attention of
    merged tokens is averaged with their sizes as weights, which differs from the third fold on.

    Parameters
    ----------
    keep : share of the patches left, in (0, 1]; counts round down, CLS stays beside them.
    r : patches merged away, over the number of layers (16 and 18 in the paper: 384 and 432 of 576); replaces `keep`.
    alpha : weight of the attention, in units of 100.
    order : "ascending", or "paper": the unmerged even tokens first, then the odd ones.
    least : with fewer tokens left, CLS included, no fold is made (40 in the published code).
    """

    name: ClassVar[str] = "folder"

    keep: float = 0.5
    r: int | None = None
    alpha: float = 5.0
    order: Literal["ascending", "paper"] = "ascending"
    least: int = 0

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "r", self.r)
        check_range(self.name, "alpha", self.alpha, 0)
        check_choice(self.name, "order", self.order, ("ascending", "paper"))
        check_count(self.name, "least", self.least)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if (self.keep == 1 and self.r is None) or self.r == 0:
            return ()
        scorer = Equal(frozenset({Signal.KEY, Signal.ATTENTION_CLS_ROW}))
        selector = Bipartite(self.order, PENALTY * self.alpha, least=self.least)
        layer = shape.layers - 1
        if self.r is None:
            budget = Budget(ratio=self.keep, base=Base.INITIAL, protect_first=1, ratio_excludes_protected=True)
        else:
            removed = self.r * (shape.layers + shape.tail_layers)
            budget = Budget(remove=removed, base=Base.INITIAL, protect_first=1)
        folds = ListedLayers(Site.MID_LAYER, ((layer, budget),) * MOST_FOLDS)
        return (Stage(folds, scorer, selector, MergeTo(), merges_signals=True),)
