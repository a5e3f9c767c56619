"""`LookThenChoose`: look at an early layer, choose at a later place."""

from __future__ import annotations

from dataclasses import dataclass

from topsieve.reduction.budget import Budget
from topsieve.reduction.roles import ModelShape, Site, Step


@dataclass(frozen=True)
class LookThenChoose:
    """A step that removes nothing after `layer`, where the scorer's state is taken; then `last` at the end."""

    layer: int
    last: Step

    def plan(self, shape: ModelShape) -> tuple[Step, ...]:
        return (Step(Site.LAYER, self.layer, Budget(ratio=1)), self.last)
