"""`GeometricRamp`: every layer keeps the same share of what it got."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from topsieve.reduction.budget import Budget
from topsieve.reduction.roles import ModelShape, Site, Step


@dataclass(frozen=True)
class GeometricRamp:
    """After layer l of L (counted from 0), keep^((l + 1) / L) of the base of `budget`.

    Parameters
    ----------
    site : where in each layer.
    keep : share after the last layer, in (0, 1].
    budget : what else holds of every step; its ratio is replaced. The base should be the initial tokens.
    """

    site: Site
    keep: float
    budget: Budget

    def plan(self, shape: ModelShape) -> tuple[Step, ...]:
        shares = [self.keep ** float(Fraction(layer + 1, shape.layers)) for layer in range(shape.layers)]
        return tuple(
            Step(self.site, layer, replace(self.budget, ratio=min(share, 1.0))) for layer, share in enumerate(shares)
        )
