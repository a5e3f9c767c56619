"""`StreamingLlm`: attention sinks and recent tokens stay in the cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from topsieve.cache.budget import CacheBudget
from topsieve.cache.reducers.evict import Evict
from topsieve.cache.roles import CacheOnly, CachePolicy, CacheStage
from topsieve.cache.rotary import ROTARY_FAMILIES
from topsieve.cache.schedules import EveryLayer
from topsieve.cache.scorers.recency import Recency
from topsieve.cache.selectors.top_slots import OldestFirst
from topsieve.methods.checks import check_choice, check_count, check_share
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class StreamingLlm(CacheOnly):
    """StreamingLLM: the first slots (attention sinks) and the newest ones stay in the cache.

    Xiao et al., ICLR 2024; specification `methods-more`, section C.

    Signals: none. With `positions=cache` keys and queries are rotated by their place in the cache, as in the paper.

    Differences from the published code: the prompt is read whole and cut afterwards, not token by token.

    Parameters
    ----------
    keep : slots, as a share of the prompt's tokens, in (0, 1].
    sinks : first slots that stay.
    recent : newest slots that stay, beside the sinks; replaces `keep` (the paper: 2000).
    positions : "cache" or "original"; "auto" is the cache's on rotary models and the original ones on others, whose
        keys cannot be moved.
    """

    name: ClassVar[str] = "streaming-llm"

    keep: float = 0.5
    sinks: int = 4
    recent: int | None = None
    positions: Literal["auto", "cache", "original"] = "auto"

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "sinks", self.sinks)
        check_count(self.name, "recent", self.recent, low=1)
        check_choice(self.name, "positions", self.positions, ("auto", "cache", "original"))

    def cache(self, shape: ModelShape) -> CachePolicy:
        if self.recent is not None:
            budget = CacheBudget(capacity=self.sinks + self.recent, first=self.sinks)
        elif self.keep == 1:
            return CachePolicy()
        else:
            budget = CacheBudget(keep=self.keep, first=self.sinks)
        moved = self.positions == "cache" or (self.positions == "auto" and shape.family in ROTARY_FAMILIES)
        stage = CacheStage(EveryLayer(budget), Recency(), OldestFirst(), Evict(), shared=True)
        return CachePolicy((stage,), cache_positions=moved)
