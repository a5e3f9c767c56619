"""Schedules of cache methods: which layers, when, how much."""

from __future__ import annotations

from dataclasses import dataclass, fields

from topsieve.cache.budget import CacheBudget, PyramidBudget
from topsieve.cache.roles import CacheStep, Moment
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class EveryLayer:
    """The same budget in all layers.

    Parameters
    ----------
    budget : of each layer.
    moment, every : when, see `CacheStep`.
    skip_first, skip_last : layers at the ends that keep everything.
    """

    budget: CacheBudget
    moment: Moment = Moment.PASS
    every: int = 1
    skip_first: int = 0
    skip_last: int = 0

    def plan(self, shape: ModelShape) -> tuple[CacheStep, ...]:
        layers = range(self.skip_first, shape.layers - self.skip_last)
        return tuple(CacheStep(layer, self.budget, self.moment, self.every) for layer in layers)


@dataclass(frozen=True)
class Pyramid:
    """Layers near the input keep more: `PyramidBudget` of each layer, after the prompt.

    Parameters
    ----------
    budget : mean over the layers; its `last` is the window.
    beta : steepness.
    """

    budget: CacheBudget
    beta: int = 20

    def plan(self, shape: ModelShape) -> tuple[CacheStep, ...]:
        same = {field.name: getattr(self.budget, field.name) for field in fields(self.budget)}
        return tuple(
            CacheStep(layer, PyramidBudget(**same, layer=layer, layers=shape.layers, beta=self.beta), Moment.PROMPT)
            for layer in range(shape.layers)
        )
