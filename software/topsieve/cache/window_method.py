"""`WindowMethod`: what SnapKV and its relatives share, a window of queries that scores and newest slots that stay."""

from __future__ import annotations

from typing import ClassVar, Literal

from topsieve.cache.budget import CacheBudget
from topsieve.cache.grouping import GROUPS, Group
from topsieve.cache.roles import CacheOnly
from topsieve.cache.scorers.window_attention import WindowAttention
from topsieve.methods.checks import check_choice, check_count, check_odd, check_share


class WindowMethod(CacheOnly):
    """Checks of the common parameters, and the budget and the scorer that they make."""

    name: ClassVar[str]
    keep: float
    capacity: int | None
    window: int
    kernel: int
    pool: Literal["average", "maximum"]
    group: Group

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "capacity", self.capacity, low=1)
        check_count(self.name, "window", self.window, low=1)
        check_odd(self.name, "kernel", self.kernel)
        check_choice(self.name, "pool", self.pool, ("average", "maximum"))
        check_choice(self.name, "group", self.group, GROUPS)

    def budget(self) -> CacheBudget | None:
        """`capacity` slots or else a share of the prompt's, the window among them; None where all stay."""
        if self.capacity is not None:
            return CacheBudget(capacity=self.capacity, last=self.window)
        return None if self.keep == 1 else CacheBudget(keep=self.keep, last=self.window)

    def scorer(self, *, mean: bool = False) -> WindowAttention:
        """As of `WindowAttention`."""
        return WindowAttention(self.window, self.kernel, self.pool, self.group, mean=mean)
