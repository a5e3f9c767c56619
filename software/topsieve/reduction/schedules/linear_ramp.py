"""`LinearRamp`: the first layers whole, then a keep ratio that falls in a straight line."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from topsieve.reduction.budget import Budget, exact
from topsieve.reduction.roles import ModelShape, Site, Step


@dataclass(frozen=True)
class LinearRamp:
    """SpAtten's schedule as its text describes it: specification `accelerator`, section 1.1.

    The first `unpruned` share of the layers (rounded up) removes nothing. Each later layer keeps a share of the base
    of `budget`, interpolated from `start` after the first of them to `keep` after the last.

    Parameters
    ----------
    site : where in each layer.
    keep : share after the last step, in (0, 1].
    budget : what else holds of every step; its ratio is replaced.
    start : share after the first step; None spreads the removal evenly over the steps.
    unpruned : share of the layers that stay whole, in [0, 1).
    skip_last : layers at the end without a step.
    every_layer : plan steps that keep everything in the whole layers too, so that a scorer with state sees them.
    """

    site: Site
    keep: float
    budget: Budget
    start: float | None = None
    unpruned: float = 0.15
    skip_last: int = 0
    every_layer: bool = False

    def plan(self, shape: ModelShape) -> tuple[Step, ...]:
        layers = shape.layers - self.skip_last
        if layers <= 0:
            return ()
        first = min(math.ceil(exact(self.unpruned) * shape.layers), layers - 1)
        whole = [(layer, Fraction(1)) for layer in range(first if self.every_layer else 0)]
        ramp = [(layer, self._share(layer - first, layers - first)) for layer in range(first, layers)]
        return tuple(Step(self.site, layer, replace(self.budget, ratio=share)) for layer, share in whole + ramp)

    def _share(self, step: int, steps: int) -> Fraction:
        keep = exact(self.keep)
        if self.start is None:
            return 1 - (1 - keep) * Fraction(step + 1, steps)
        if steps == 1:
            return keep
        start = exact(self.start)
        return start + (keep - start) * Fraction(step, steps - 1)
