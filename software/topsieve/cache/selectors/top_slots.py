"""`TopSlots`: the largest scores stay, head by head."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from topsieve.cache.budget import CacheBudget, Quota
from topsieve.cache.roles import CacheContext
from topsieve.reduction.ordering import compact, live_rank, top_k_mask
from topsieve.reduction.roles import ModelShape, Selection
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import TopK


def quotas(budget: CacheBudget, context: CacheContext) -> list[Quota]:
    """What each row keeps. A share that the layer was given (`memory["share"]`) stands in for the budget's own."""
    rows = list(zip(context.live.tolist(), context.initial.tolist(), strict=True))
    given = context.memory.get("share")
    if given is None:
        # Rows of equal lengths are many, and shares are counted in fractions.
        known = {row: budget.quota(*row) for row in set(rows)}
        return [known[row] for row in rows]
    own = [replace(budget, keep=share) for share in given.tolist()]
    return [mine.quota(slots, prompt) for mine, (slots, prompt) in zip(own, rows, strict=True)]


def always_kept(rows: list[Quota], context: CacheContext) -> Tensor:
    """bool [R, N]: the first and the last slots of each row's quota, and all of a row that is under it."""
    first, last, total = (
        torch.tensor([getattr(row, name) for row in rows], device=context.valid.device).unsqueeze(-1)
        for name in ("first", "last", "total")
    )
    rank, live = live_rank(context.valid), context.live.unsqueeze(-1)
    return ((rank < first) | (rank >= live - last) | (total >= live)) & context.valid


@dataclass(frozen=True)
class TopSlots:
    """The budget's count of largest scores beside its protected slots; of equal scores the oldest slot stays.

    Parameters
    ----------
    shared : the scores of all heads are equal, one selection serves them all.
    """

    shared: bool = False

    def select(self, scores: Tensor, budget: CacheBudget, context: CacheContext) -> Selection:
        rows = quotas(budget, context)
        fixed = always_kept(rows, context)
        total = torch.tensor([row.total for row in rows], device=scores.device)
        keep, valid = compact(fixed | top_k_mask(scores, total - fixed.sum(-1), context.valid & ~fixed))
        return Selection(keep=keep, valid=valid, scores=scores)

    def work(self, shape: ModelShape, layer: int, slots: int, kept: int, fixed: int) -> tuple[Op, ...]:
        repeats = 1 if self.shared else shape.kv_heads
        return (TopK(layer=layer, n=slots - fixed, k=kept - fixed, scope=TopKScope.TOKEN, repeats=repeats),)


@dataclass(frozen=True)
class OldestFirst:
    """As `TopSlots` where the score is the position: nothing needs to be compared."""

    def select(self, scores: Tensor, budget: CacheBudget, context: CacheContext) -> Selection:
        return TopSlots().select(scores, budget, context)

    def work(self, shape: ModelShape, layer: int, slots: int, kept: int, fixed: int) -> tuple[Op, ...]:
        return ()
