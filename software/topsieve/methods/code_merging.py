"""`CodeMerging`: the tokens of one identifier become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.methods.checks import check_choice, check_count
from topsieve.methods.plain_attention import PlainAttention
from topsieve.reduction.budget import Budget
from topsieve.reduction.reducers import MergeTo, SoftmaxMerge
from topsieve.reduction.roles import ModelShape, Signal, Site, Stage
from topsieve.reduction.schedules import ListedLayers
from topsieve.reduction.scorers import Equal, UnitScore
from topsieve.reduction.selectors import Units
from topsieve_sim.errors import InputError


@dataclass(frozen=True)
class CodeMerging(PlainAttention):
    """Token merging for code: the tokens of one identifier become one at the output of a layer.

    Saad et al., 2025; specification `methods-text`, section 9, which completes what the paper's public text leaves open:
    the form of the learned weights and the handling of positions.

    Units of the text are given with the batch (`topsieve.reduce(..., units=...)`, made by
    `topsieve.code_units.code_units`); without them every token is a unit of its own and nothing is merged. How many
    tokens stay depends on the text; there is no `keep`. A merged token stands at the first of its unit, and what learned
    positions said is already in the hidden states. Signals: units; learned weights look at hidden states.

    Parameters
    ----------
    layer : the layer, counted from 1, behind which units are merged; None for the first layer of the last quarter, where
        the paper finds classification best (10 of 12).
    operator : "mean", or "learned": weights by a softmax within the unit. Without `weights` these are equal, the mean.
    weights : safetensors file of learned weights: `vector` [C], or `vector` [D], `matrix` [D, C] and `bias` [D].
    positions : in models with rotary positions, those of the first token of each unit, or "renumber".
    """

    name: ClassVar[str] = "code-merging"

    layer: int | None = None
    operator: Literal["mean", "learned"] = "mean"
    weights: str = ""
    positions: Literal["first", "renumber"] = "first"

    def __post_init__(self) -> None:
        check_count(self.name, "layer", self.layer, low=1)
        check_choice(self.name, "operator", self.operator, ("mean", "learned"))
        check_choice(self.name, "positions", self.positions, ("first", "renumber"))
        if self.weights and self.operator == "mean":
            raise InputError(
                "wrong value", source=f"method {self.name}", field="operator", value="mean", allowed="learned"
            )

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        after = max(shape.layers * 3 // 4 + 1, 1) if self.layer is None else self.layer
        schedule = ListedLayers(Site.LAYER, ((min(after, shape.layers) - 1, Budget(ratio=1)),))
        learned = self.operator == "learned"
        return (
            Stage(
                schedule,
                UnitScore(self.weights) if learned else Equal(frozenset({Signal.UNIT})),
                Units(),
                SoftmaxMerge() if learned else MergeTo(),
                renumber=self.positions == "renumber",
            ),
        )
