"""`Drop`: what does not stay is gone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from topsieve.reduction.reducers.kept_rows import gather_work, gathered
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import Context, ModelShape, Selection
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class Drop:
    """Prune.

    Parameters
    ----------
    axis : "token", or "head": heads do not move, so their removal costs nothing here.
    """

    axis: Literal["token", "head"] = "token"

    def reduce(self, selection: Selection, context: Context) -> Reduction:
        return gathered(selection, context, self.axis)

    def work(self, shape: ModelShape, layer: int, tokens: int, kept: int) -> tuple[Op, ...]:
        return gather_work(shape, layer, tokens, kept) if self.axis == "token" else ()
