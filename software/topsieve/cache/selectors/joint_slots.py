"""`JointSlots`: heads share one budget, so that heads with much to lose keep more, Ada-KV's selection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.cache.budget import CacheBudget
from topsieve.cache.roles import CacheContext
from topsieve.cache.selectors.top_slots import always_kept, quotas
from topsieve.reduction.budget import Rounding, exact, rounded
from topsieve.reduction.ordering import compact, top_k_mask
from topsieve.reduction.roles import ModelShape, Selection
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import TopK


@dataclass(frozen=True)
class JointSlots:
    """Of b free slots a head, KV x b are taken from all heads at once; hits are then mixed with an even share.

    A head with n hits keeps round_half_even(n (1 - alpha) + floor(b alpha)) of its best free slots: specification
    `methods-more`, Ada-KV.

    Parameters
    ----------
    alpha : part of the budget that every head has, in [0, 1]; 1 is the even budget.
    normalised : in the joint selection a head's scores count times the share that its b best free slots have of all its
        free slots' scores.
    """

    alpha: float = 0.2
    normalised: bool = False

    def select(self, scores: Tensor, budget: CacheBudget, context: CacheContext) -> Selection:
        heads = context.shape.kv_heads
        rows = quotas(budget, context)
        fixed = always_kept(rows, context)
        free = context.valid & ~fixed
        total = torch.tensor([row.total for row in rows], device=scores.device)
        each = (total - fixed.sum(-1)).clamp(min=0)
        # Heads first: of equal scores the first head's oldest slot wins.
        compared = scores
        if self.normalised:
            every = (scores * free).sum(-1, keepdim=True)
            of_best = (scores * top_k_mask(scores, each, free)).sum(-1, keepdim=True)
            compared = scores * (of_best / every.clamp(min=torch.finfo(scores.dtype).tiny))
        flat = compared.reshape(-1, heads * scores.shape[1])
        joint = top_k_mask(flat, each.reshape(-1, heads).sum(-1), free.reshape(flat.shape)).reshape(free.shape)
        alpha = exact(self.alpha)
        counts = [
            rounded(hits * (1 - alpha) + rounded(b * alpha, Rounding.FLOOR), Rounding.HALF_EVEN)
            for hits, b in zip(joint.sum(-1).tolist(), each.tolist(), strict=True)
        ]
        chosen = fixed | top_k_mask(scores, torch.tensor(counts, device=scores.device), free)
        empty = ~chosen.any(-1, keepdim=True)
        chosen = chosen | (top_k_mask(scores, torch.ones_like(total), free) & empty)
        keep, valid = compact(chosen)
        return Selection(keep=keep, valid=valid, scores=scores)

    def work(self, shape: ModelShape, layer: int, slots: int, kept: int, fixed: int) -> tuple[Op, ...]:
        free, taken = slots - fixed, kept - fixed
        # A longer selection than the unit holds is made head by head, and the heads' winners joined.
        return (
            TopK(
                layer=layer, n=free, k=min(taken * shape.kv_heads, free), scope=TopKScope.TOKEN, repeats=shape.kv_heads
            ),
            TopK(layer=layer, n=free, k=min(max(taken, 0), free), scope=TopKScope.TOKEN, repeats=shape.kv_heads),
        )
