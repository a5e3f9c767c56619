"""`PowerBert`: PoWER-BERT's progressive word-vector elimination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.methods.checks import check_count, check_share
from topsieve.reduction.budget import Base, Budget
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import AttentionPolicy, ModelShape, Schedule, Site, Stage
from topsieve.reduction.schedules import GeometricRamp, ListedLayers
from topsieve.reduction.scorers import Significance
from topsieve.reduction.selectors import TopScores


@dataclass(frozen=True)
class PowerBert:
    """PoWER-BERT: keep the tokens that receive most attention from the others, fewer in each layer.

    Goyal et al., ICML 2020; specification `methods-more`, section A.

    After attention in every layer, CLS and the tokens of largest significance stay: the attention received from the
    others, mean over heads. Signals: column sums and diagonal of the probabilities.

    Differences from the published code: padding rows are left out of the sums (it includes them), so a padded batch
    gives what its sequences give alone; the counts are taken as given, not learned.

    Parameters
    ----------
    keep : share of the initial tokens left after the last layer, in (0, 1]. Each layer keeps the same share of what
        it got; counts round down.
    counts : tokens to keep in each layer, as learned for one padded length; replaces `keep`. Layers beyond the list
        remove nothing.
    """

    name: ClassVar[str] = "powerbert"

    keep: float = 0.5
    counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        for count in self.counts:
            check_count(self.name, "counts", count, low=1)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        schedule: Schedule
        if self.counts:
            budgets = tuple((layer, Budget(count=count, protect_first=1)) for layer, count in enumerate(self.counts))
            schedule = ListedLayers(Site.MID_LAYER, budgets)
        elif self.keep < 1:
            budget = Budget(ratio=1, base=Base.INITIAL, protect_first=1)
            schedule = GeometricRamp(Site.MID_LAYER, self.keep, budget)
        else:
            return ()
        return (Stage(schedule, Significance(), TopScores(), Drop()),)

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        return AttentionPolicy()
