"""`Quest`: each query reads the pages that could match it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from topsieve.cache.budget import CacheBudget
from topsieve.cache.pages import QueryPages
from topsieve.cache.roles import CacheOnly, CachePolicy
from topsieve.methods.checks import check_count, check_share
from topsieve.reduction.roles import ModelShape


@dataclass(frozen=True)
class Quest(CacheOnly):
    """Quest: the whole cache stays, but each query reads only the pages whose keys could match it best.

    Tang et al., ICML 2024; specification `methods-more`, section C.

    In decoding, each query head bounds its score for every page of keys from the page's channel minima and maxima, and
    attends to the best pages. Nothing is evicted, so memory does not shrink; traffic does. Signals: queries, and page
    minima and maxima of the keys.

    Parameters
    ----------
    keep : slots to read, as a share of the prompt's tokens, in (0, 1]; rounded down to whole pages, at least three.
    budget : slots to read, the published code's parameter; replaces `keep`.
    page_size : slots of a page.
    skip_layers : layers near the input that read everything.
    """

    name: ClassVar[str] = "quest"

    keep: float = 0.5
    budget: int | None = None
    page_size: int = 16
    skip_layers: int = 2

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_count(self.name, "budget", self.budget, low=1)
        check_count(self.name, "page_size", self.page_size, low=1)
        check_count(self.name, "skip_layers", self.skip_layers)

    def cache(self, shape: ModelShape) -> CachePolicy:
        if self.budget is not None:
            budget = CacheBudget(capacity=self.budget)
        elif self.keep == 1:
            return CachePolicy()
        else:
            budget = CacheBudget(keep=self.keep)
        return CachePolicy(reader=QueryPages(budget, self.page_size, self.skip_layers))
