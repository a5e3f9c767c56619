"""`MergeRamp`: a number of tokens merged away in every layer, even or rising, as ToMe schedules it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from topsieve.reduction.budget import Base, Budget, exact
from topsieve.reduction.roles import ModelShape, Site, Step


@dataclass(frozen=True)
class MergeRamp:
    """ToMe's schedule: specification `methods-more`, ToMe.

    With `remove` = r and L layers, layer i removes int(low + i (high - low) / (L - 1)), low = int(r (1 - inflect)) and
    high = 2 r - low. Without it, the layers remove shares of the initial tokens in the same proportions, so that
    `keep` of them are left at the end.

    Parameters
    ----------
    site : where in each layer.
    budget : what else holds of every step; its ratio is replaced, and with `remove` its base.
    keep : share after the last layer, in (0, 1].
    remove : tokens a layer, on average; replaces `keep`.
    inflect : in [-1, 1]; 0 is even, above it later layers remove more.
    """

    site: Site
    budget: Budget
    keep: float = 1.0
    remove: int | None = None
    inflect: float = 0.0

    def plan(self, shape: ModelShape) -> tuple[Step, ...]:
        last = max(shape.layers - 1, 1)
        if self.remove is not None:
            low = int(self.remove * (1 - exact(self.inflect)))
            rise = 2 * (self.remove - low)
            budgets = [
                replace(self.budget, ratio=None, base=Base.CURRENT, remove=int(low + Fraction(layer * rise, last)))
                for layer in range(shape.layers)
            ]
        else:
            weights = [1 - exact(self.inflect) * (1 - Fraction(2 * layer, last)) for layer in range(shape.layers)]
            removal = (1 - exact(self.keep)) / sum(weights, Fraction(0)) if any(weights) else Fraction(0)
            budgets = [
                replace(self.budget, ratio=1 - removal * sum(weights[: layer + 1], Fraction(0)))
                for layer in range(shape.layers)
            ]
        return tuple(Step(self.site, layer, budget) for layer, budget in enumerate(budgets))
