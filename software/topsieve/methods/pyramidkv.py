"""`PyramidKv`: SnapKV with more slots near the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.cache.reducers.evict import Evict
from topsieve.cache.roles import CachePolicy, CacheStage
from topsieve.cache.schedules import Pyramid
from topsieve.cache.selectors.top_slots import TopSlots
from topsieve.cache.window_method import WindowMethod
from topsieve.methods.checks import check_count
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class PyramidKv(WindowMethod):
    """PyramidKV: SnapKV's choice with a budget that shrinks from layer to layer.

    Cai et al., 2024; specification `methods-more`, section C.

    Signals: the last rows of the probabilities. The layers' budgets are an arithmetic series whose mean is what `keep`
    asks for.

    Differences from the published code: as `snapkv`.

    Parameters
    ----------
    keep : slots, as a share of the prompt's tokens, mean over the layers, in (0, 1]; the window is inside.
    capacity : slots, the published code's parameter; replaces `keep`.
    beta : the last layer keeps a beta-th of the mean, beside the window.
    window : queries that score, and newest slots that stay.
    kernel : of the pooling along the slots; odd.
    pool : "average" or "maximum".
    group : how the query heads of a key-value head are joined: sum, mean or max.
    """

    name: ClassVar[str] = "pyramidkv"

    keep: float = 0.5
    capacity: int | None = None
    beta: int = 20
    window: int = 8
    kernel: int = 7
    pool: Literal["average", "maximum"] = "maximum"
    group: Literal["sum", "mean", "max"] = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.name, "beta", self.beta, low=1)

    def cache(self, shape: ModelShape) -> CachePolicy:
        budget = self.budget()
        if budget is None:
            return CachePolicy()
        return CachePolicy((CacheStage(Pyramid(budget, self.beta), self.scorer(), TopSlots(), Evict()),))
