"""`Dense`: nothing is reduced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.cache.roles import CachePolicy
from topsieve.reduction.roles import AttentionPolicy, ModelShape, Stage


@dataclass(frozen=True)
class Dense:
    """The whole model: the reference every method is compared with.

    Signals: none. It has no parameters; in particular no `keep`.
    """

    name: ClassVar[str] = "dense"

    def stages(self, shape: ModelShape) -> tuple[Stage, ...]:
        return ()

    def attention(self, shape: ModelShape, layer: int) -> AttentionPolicy:
        return AttentionPolicy()

    def cache(self, shape: ModelShape) -> CachePolicy:
        return CachePolicy()
