"""`ListedLayers`: each step written out."""

from __future__ import annotations

from dataclasses import dataclass

from topsieve.reduction.budget import Budget
from topsieve.reduction.roles import ModelShape, Site, Step


@dataclass(frozen=True)
class ListedLayers:
    """One step at `site` of each listed layer; layers the model does not have are left out.

    Parameters
    ----------
    site : where in each layer.
    budgets : pairs of layer and budget, by ascending layer.
    """

    site: Site
    budgets: tuple[tuple[int, Budget], ...]

    def plan(self, shape: ModelShape) -> tuple[Step, ...]:
        return tuple(Step(self.site, layer, budget) for layer, budget in self.budgets if layer < shape.layers)
