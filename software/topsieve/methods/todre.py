"""`ToDre`: diverse image tokens, and none at all in the last layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.methods.checks import check_choice, check_flag, check_range, check_share
from topsieve.methods.output_budget import output_budget
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.budget import Budget
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import ModelShape, Signal, Site, Stage, Tower
from topsieve.reduction.schedules import OneStep
from topsieve.reduction.scorers import ClassAttention, CrossAttention
from topsieve.reduction.selectors import AllOrNothing, Diverse


@dataclass(frozen=True)
class ToDre(PlainAttention):
    """ToDRE: keep image tokens unlike each other, and none once text and image stop to look at each other.

    Li et al., 2025; specification `methods-vision`, section 2 (version 2).

    Between projector and language model: first the token CLS attends to most in the tower's last layer, then again and
    again the one whose cosines to the picked ones add up to least. After 7/8 of the language model's layers, all image
    tokens go if text and image put less than `threshold` of their attention on each other. Signals: the CLS row of the
    probabilities, hidden states; queries and keys in the language model.

    Parameters
    ----------
    keep : share of the image tokens that stays, in (0, 1]; counts round down.
    update : nearness to the picked ones is the "sum" of the cosines, or the largest ("max", as version 1 is
        understood).
    drop_late : do the second stage.
    threshold : of it.
    """

    name: ClassVar[str] = "todre"

    keep: float = 0.25
    update: Literal["sum", "max"] = "sum"
    drop_late: bool = True
    threshold: float = 0.1

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_choice(self.name, "update", self.update, ("sum", "max"))
        check_flag(self.name, "drop_late", self.drop_late)
        check_range(self.name, "threshold", self.threshold, 0, 1)

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1:
            return ()
        last = shape.layers + shape.tail_layers - 1
        diverse = Diverse(nearness="total" if self.update == "sum" else "closest", first="best", whole=False)
        first = Stage(
            OneStep(Site.PROJECTED, last, output_budget(shape, self.keep)),
            ClassAttention(frozenset({Signal.HIDDEN})),
            diverse,
            Drop(),
        )
        if shape.tower is not Tower.LANGUAGE or not self.drop_late:
            return (first,)
        # The layer after which 7/8 of them have run, but never the last one, after which nothing is saved.
        layer = min(max(7 * shape.layers // 8, 1), shape.layers - 1) - 1
        late = OneStep(Site.LAYER, max(layer, 0), Budget(threshold=self.threshold))
        second = Stage(late, CrossAttention(), AllOrNothing(), Drop(), tower=Tower.LANGUAGE)
        return (first, second)
