"""`StepwiseRamp`: few large steps in the first half, the schedule of SpAtten's published traces."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

from topsieve.reduction.budget import Budget, exact
from topsieve.reduction.roles import ModelShape, Site, Step

# GPT-2-Medium on WikiText-2 (specification `accelerator`, section 1.6): of 24 layers, layer 2 is the first with 0.9 of
# the tokens, layer 3 with 0.8, layer 5 with 0.6, layer 11 with 0.3. Pairs: depth, part of the whole removal done.
TRACE_STEPS = (
    (Fraction(2, 24), Fraction(1, 7)),
    (Fraction(3, 24), Fraction(2, 7)),
    (Fraction(5, 24), Fraction(4, 7)),
    (Fraction(11, 24), Fraction(1)),
)


@dataclass(frozen=True)
class StepwiseRamp:
    """SpAtten's schedule as its published traces run it, scaled to the model's depth and to `keep`.

    With `keep` 0.3 and 24 layers it is the trace's own; elsewhere each step removes the same part of what is removed
    in all. Steps that fall on one layer of a shallow model become one.

    Parameters
    ----------
    site : where in each layer.
    keep : share after the last step, in (0, 1].
    budget : what else holds of every step; its ratio is replaced.
    every_layer : plan steps that keep everything between the others, so that a scorer with state sees all layers up
        to the last removal.
    """

    site: Site
    keep: float
    budget: Budget
    every_layer: bool = False

    def plan(self, shape: ModelShape) -> tuple[Step, ...]:
        removal = 1 - exact(self.keep)
        # A share that is live from layer l on is reached by the step in layer l - 1.
        shares = {math.ceil(depth * shape.layers) - 1: 1 - removal * part for depth, part in TRACE_STEPS}
        steps = []
        share = Fraction(1)
        for layer in range(max(shares) + 1):
            share = shares.get(layer, share)
            if layer in shares or self.every_layer:
                steps.append(Step(self.site, layer, replace(self.budget, ratio=share)))
        return tuple(steps)
