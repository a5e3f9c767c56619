"""`Evict`: what does not stay is gone."""

from __future__ import annotations

from dataclasses import dataclass

from topsieve.cache.roles import CacheContext
from topsieve.reduction.reducers.kept_rows import gathered
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import ModelShape, Selection
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class Evict:
    """The slots are freed. The fetcher reads by slot number, so nothing moves."""

    def reduce(self, selection: Selection, context: CacheContext) -> Reduction:
        return gathered(selection, context)

    def work(self, shape: ModelShape, layer: int, slots: int, kept: int) -> tuple[Op, ...]:
        return ()
