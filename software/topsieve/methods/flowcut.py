"""`FlowCut`: prune a few tokens at every second layer of the vision tower, by the flow of information so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.methods.checks import check_choice, check_count, check_share
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.budget import Base, Budget
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import ModelShape, Site, Stage
from topsieve.reduction.schedules import ListedLayers
from topsieve.reduction.scorers import InformationFlow
from topsieve.reduction.selectors import EntropyPaced


@dataclass(frozen=True)
class FlowCut(PlainAttention):
    """FlowCut: drop patches inside the vision tower, by attention and values averaged over its layers.

    Tong et al., NeurIPS 2025; specification `methods-vision`, sections 1.1 and 1.2 (LLaVA-1.5).

    After every layer each patch's score is averaged with the one before: attention of CLS plus likeness of its value to
    that of CLS, times the length of the value. In every second layer the patches of the lowest averages go; how many
    follows from the entropy of the CLS row. The last but one of the used layers reaches the count. Signals: the CLS row
    of the probabilities, values.

    Differences from the published code ("official"): each image has its own count, not the largest of the batch; rounding of the
    count is that of float64.

    Parameters
    ----------
    keep : share of the patches left, in (0, 1]; counts round down, CLS stays beside them.
    tokens : how many patches are left, the paper's parameter; replaces `keep`.
    variant : likeness of values: "official", the softmax of the unscaled products, or "paper", their cosine, of which
        negative ones count as 0.
    """

    name: ClassVar[str] = "flowcut"

    keep: float = 0.5
    tokens: int | None = None
    variant: Literal["official", "paper"] = "official"

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "tokens", self.tokens, low=1)
        check_choice(self.name, "variant", self.variant, ("official", "paper"))

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1 and self.tokens is None:
            return ()
        if self.tokens is None:
            budget = Budget(ratio=self.keep, base=Base.INITIAL, protect_first=1, ratio_excludes_protected=True)
        else:
            budget = Budget(count=self.tokens + 1, protect_first=1)
        last = max(shape.layers - 2, 0)
        schedule = ListedLayers(Site.LAYER, tuple((layer, budget) for layer in range(last + 1)))
        return (
            Stage(
                schedule,
                InformationFlow("softmax" if self.variant == "official" else "cosine"),
                EntropyPaced(last),
                Drop(),
                accumulates=True,
            ),
        )
