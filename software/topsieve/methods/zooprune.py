"""`ZooPrune`: diverse tokens that the projector is sensitive to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.methods.checks import check_choice, check_count, check_range, check_share
from topsieve.methods.output_budget import output_budget
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.reducers import Drop
from topsieve.reduction.roles import ModelShape, Site, Stage
from topsieve.reduction.schedules import OneStep
from topsieve.reduction.scorers import Sensitivity
from topsieve.reduction.selectors import Diverse
from topsieve_sim.errors import InputError


@dataclass(frozen=True)
class ZooPrune(PlainAttention):
    """ZOO-Prune: keep image tokens that differ from each other and that move the projector's output most.

    Kim et al., CVPR 2026; specification `methods-vision`, section 5 (LLaVA-1.5).

    Between projector and language model. Sensitivity is measured by finite differences of the projector in random
    directions, without gradients, and scaled to [0, 1]. First the most sensitive token is picked, then again and again
    the one of the largest distance (1 - cosine) to the nearest picked one times its sensitivity. Signals: hidden states
    before and behind the projector.

    Parameters
    ----------
    keep : share of the image tokens that stays, in (0, 1]; counts round down.
    directions : random directions (64).
    step : length of a step in them (0.01).
    seed : of the directions.
    variant : "official": directions have length 1; "paper": they are drawn from the normal distribution as they come.
    """

    name: ClassVar[str] = "zoo-prune"

    keep: float = 0.5
    directions: int = 64
    step: float = 0.01
    seed: int = 0
    variant: Literal["official", "paper"] = "official"

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "directions", self.directions, low=1)
        check_count(self.name, "seed", self.seed)
        check_range(self.name, "step", self.step, 0)
        check_choice(self.name, "variant", self.variant, ("official", "paper"))
        if self.step == 0:
            raise InputError("wrong value", source=f"method {self.name}", field="step", value=0, allowed="more than 0")

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        if self.keep == 1:
            return ()
        schedule = OneStep(Site.PROJECTED, shape.layers - 1, output_budget(shape, self.keep))
        selector = Diverse(first="best", weighted=True, whole=False)
        return (
            Stage(
                schedule,
                Sensitivity(self.directions, self.step, self.seed, self.variant == "official"),
                selector,
                Drop(),
            ),
        )
