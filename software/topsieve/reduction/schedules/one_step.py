"""`OneStep`: a single step, at one place."""

from __future__ import annotations

from dataclasses import dataclass

from topsieve.reduction.budget import Budget
from topsieve.reduction.roles import ModelShape, Site, Step


@dataclass(frozen=True)
class OneStep:
    """One step at `site`. Outside the layers, `layer` is the one whose signals are read."""

    site: Site
    layer: int
    budget: Budget

    def plan(self, shape: ModelShape) -> tuple[Step, ...]:
        return (Step(self.site, self.layer, self.budget),)
