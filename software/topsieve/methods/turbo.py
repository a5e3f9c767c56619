"""`Turbo`: merge tokens that are alike and that the class token does not look at."""

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

# The published code's factor of alpha.
PENALTY = 30.0


@dataclass(frozen=True)
class Turbo:
    """Turbo: merge tokens that are redundant and that CLS does not attend to, in every layer.

    Ju et al., ECCV 2024; specification `methods-vision`, section 6.1.

    As ToMe, but the attention of CLS to a token is taken off its strongest edge, so that tokens of meaning are merged
    last. Signals: keys, the CLS row of the probabilities.

    Differences from the published code: slots leave in ascending order unless `order` says "paper"; ties go to the
    lowest index.

    Parameters
    ----------
    keep : share of the initial tokens left after the last layer, in (0, 1]; counts round down.
    r : tokens merged in each layer, the paper's parameter (30 or 40); replaces `keep`.
    inflect : in [-1, 1]; 0 merges evenly over the layers, above it later ones merge more.
    alpha : weight of the attention, in units of 30 (5 in the paper's runs).
    beta, gamma : the weight is multiplied by beta^|gamma - layer|.
    proportional : add log(size) to the attention scores.
    order : "ascending", or "paper": the unmerged even tokens first, then the odd ones.
    least : sequences of fewer tokens, CLS included, lose none (40 in the published code, 0 or 100 for retrieval).
    """

    name: ClassVar[str] = "turbo"

    keep: float = 0.5
    r: int | None = None
    inflect: float = 0.0
    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 0.0
    proportional: bool = True
    order: Literal["ascending", "paper"] = "ascending"
    least: int = 0

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "r", self.r)
        check_range(self.name, "inflect", self.inflect, -1, 1)
        check_range(self.name, "alpha", self.alpha, 0)
        check_range(self.name, "beta", self.beta, 0)
        check_flag(self.name, "proportional", self.proportional)
        check_choice(self.name, "order", self.order, ("ascending", "paper"))
        check_count(self.name, "least", self.least)

    @property
    def merges(self) -> bool:
        """Whether anything is merged at all."""
        return self.keep < 1 if self.r is None else self.r > 0

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if not self.merges:
            return ()
        budget = Budget(ratio=1, base=Base.INITIAL, protect_first=1)
        schedule = MergeRamp(Site.MID_LAYER, budget, keep=self.keep, remove=self.r, inflect=self.inflect)
        selector = Bipartite(self.order, PENALTY * self.alpha, self.beta, self.gamma, self.least)
        scorer = Equal(frozenset({Signal.KEY, Signal.ATTENTION_CLS_ROW}))
        return (Stage(schedule, scorer, selector, MergeTo()),)

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        return AttentionPolicy(size_bias=self.proportional and self.merges)
