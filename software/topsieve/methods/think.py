"""`ThinK`: key channels that queries hardly use are not stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.cache.channels import QueryChannels
from topsieve.cache.roles import CacheOnly, CachePolicy
from topsieve.methods.checks import check_count, check_range
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class ThinK(CacheOnly):
    """ThinK: key channels that the last queries hardly use are not stored; no token leaves.

    Xu et al., ICLR 2025; specification `methods-more`, section C.

    Once, after the prompt, each key-value head drops the channels with the smallest product of the mean square of the
    last queries and of the keys. The newest keys, and those to come, stay whole. Signals: queries, keys.

    Differences from the published code: query heads of a group share their channels.

    Parameters
    ----------
    drop : share of the channels that goes, in [0, 1); the count rounds down.
    window : queries that score, and newest keys that stay whole.
    """

    name: ClassVar[str] = "think"

    drop: float = 0.4
    window: int = 32

    def __post_init__(self) -> None:
        check_range(self.name, "drop", self.drop, 0, 0.99)
        check_count(self.name, "window", self.window, low=1)

    def cache(self, shape: ModelShape) -> CachePolicy:
        if self.drop == 0:
            return CachePolicy()
        return CachePolicy(channels=QueryChannels(self.drop, self.window))
