"""`ToMe`: merge the most similar tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.methods.checks import check_choice, check_count, check_flag, check_range, check_share
from topsieve.reduction.budget import Base, Budget
from topsieve.reduction.reducers import MergeTo
from topsieve.reduction.roles import AttentionPolicy, ModelShape, Signal, Site, Stage
from topsieve.reduction.schedules import MergeRamp
from topsieve.reduction.scorers import Equal
from topsieve.reduction.selectors import Bipartite


@dataclass(frozen=True)
class ToMe:
    """Token Merging: average the most similar tokens in every layer.

    Bolya et al., ICLR 2023; specification `methods-more`, section A.

    In every layer, after attention, the even tokens are matched with the odd ones by the cosine of their keys (mean
    over heads); the pairs of the strongest edges become their size-weighted average. Signals: keys.

    Differences from the published code: slots leave in ascending order unless `order` says "paper", which changes
    what is even in the next layer; ties go to the lowest index; `keep` gives each sequence its own r.

    Parameters
    ----------
    keep : share of the initial tokens left after the last layer, in (0, 1]; counts round down. A layer can merge at
        most half of its tokens, so very small shares take several layers or are not reached.
    r : tokens merged in each layer, the paper's parameter; replaces `keep`.
    inflect : in [-1, 1]; 0 merges evenly over the layers, below it earlier layers merge more (the paper's decreasing
        schedule is -1), above it later ones.
    proportional : add log(size) to the attention scores; on for models that were not trained with merging.
    protect_cls : token 0 takes no part.
    order : "ascending", or "paper": the unmerged even tokens first, then the odd ones.
    """

    name: ClassVar[str] = "tome"

    keep: float = 0.5
    r: int | None = None
    inflect: float = 0.0
    proportional: bool = True
    protect_cls: bool = True
    order: Literal["ascending", "paper"] = "ascending"

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "r", self.r)
        check_range(self.name, "inflect", self.inflect, -1, 1)
        check_flag(self.name, "proportional", self.proportional)
        check_flag(self.name, "protect_cls", self.protect_cls)
        check_choice(self.name, "order", self.order, ("ascending", "paper"))

    @property
    def merges(self) -> bool:
        """Whether anything is merged at all."""
        return self.keep < 1 if self.r is None else self.r > 0

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if not self.merges:
            return ()
        budget = Budget(ratio=1, base=Base.INITIAL, protect_first=1 if self.protect_cls else 0)
        schedule = MergeRamp(Site.MID_LAYER, budget, keep=self.keep, remove=self.r, inflect=self.inflect)
        return (Stage(schedule, Equal(frozenset({Signal.KEY})), Bipartite(self.order), MergeTo()),)

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        return AttentionPolicy(size_bias=self.proportional and self.merges)
