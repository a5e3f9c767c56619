"""`ThresholdRamp`: thresholds that rise with depth, as LTP starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from topsieve.reduction.budget import Budget
from topsieve.reduction.roles import ModelShape, Site, Step


@dataclass(frozen=True)
class ThresholdRamp:
    """Threshold max(`floor`, `final` l / L) in layer l of L: specification `methods-more`, LTP.

    Parameters
    ----------
    site : where in each layer.
    final : where the ramp would end, one layer after the last.
    budget : what else holds of every step; its threshold is replaced.
    floor : no threshold is lower.
    """

    site: Site
    final: float
    budget: Budget
    floor: float = 0.0

    def plan(self, shape: ModelShape) -> tuple[Step, ...]:
        return tuple(
            Step(self.site, layer, replace(self.budget, threshold=max(self.floor, self.final * layer / shape.layers)))
            for layer in range(shape.layers)
        )
