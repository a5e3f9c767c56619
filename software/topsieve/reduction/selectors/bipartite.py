"""`Bipartite`: ToMe's soft matching, the most similar pairs of even and odd tokens become one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from topsieve.kernel_choice import uses_kernels
from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import compact, live_rank, top_k_mask
from topsieve.reduction.roles import Context, ModelShape, Selection, Signal
from topsieve.reduction.selectors.counting import keep_counts, protected
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import ArgmaxRow, Norm, Similarity, TopK

SMALLEST_NORM = 1e-30


def best_edges(metric: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
    """The best odd partner of each even token, by cosine; of equal ones the first.

    Parameters
    ----------
    metric : float [B, n, d].
    free : bool [B, n], tokens that may take part.

    Returns
    -------
    edge : float [B, ceil(n / 2)], the cosine; minus infinity where there is no partner.
    partner : int64 [B, ceil(n / 2)], index among the n tokens.
    """
    if metric.shape[1] > 1 and uses_kernels(metric) and bool((free == free[:1]).all()):
        from topsieve_kernels.matching import best_partners

        taken = tuple((~free[0]).nonzero().flatten().tolist())
        edge, chosen = best_partners(metric, taken, backend="triton")
        return edge, chosen.long()
    unit = metric / metric.norm(dim=-1, keepdim=True).clamp(min=SMALLEST_NORM)
    even, odd = unit[:, 0::2], unit[:, 1::2]
    if not odd.shape[1]:
        none = even.new_full(even.shape[:2], float("-inf"))
        return none, torch.zeros_like(none, dtype=torch.int64)
    cosine = even @ odd.transpose(1, 2)
    cosine = cosine.masked_fill(~free[:, 0::2, None] | ~free[:, None, 1::2], float("-inf"))
    return cosine.amax(-1), cosine.argmax(-1) * 2 + 1


@dataclass(frozen=True)
class Bipartite:
    """Even tokens whose best edge is among the strongest are assigned to their odd partner: `methods-more`, ToMe.

    The metric is the key, mean over heads. At most (n - protected) // 2 tokens go in one step. Of equally strong
    edges the one of the lowest index is taken. The selection's scores are minus the best edge's cosine; tokens without
    an edge score 1, the most important a token can be.

    Parameters
    ----------
    order : "ascending", or "paper": the unmerged even tokens, then the odd ones. The order decides which tokens are
        even in the next layer.
    penalty : what the attention of CLS to the even token, mean over heads, takes off its edge: Turbo's semantic value,
        specification `methods-vision`, section 6.1. In layer l it is multiplied by decay^|decay_from - l|.
    decay, decay_from : see above.
    least : sequences of fewer tokens lose none.
    """

    order: Literal["ascending", "paper"] = "ascending"
    penalty: float = 0.0
    decay: float = 1.0
    decay_from: float = 0.0
    least: int = 0

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        fixed = protected(budget, context)
        removed = context.live - keep_counts(budget, context)
        removed = torch.minimum(removed, (context.live - fixed.sum(-1)) // 2) * (context.live >= self.least)
        if not bool((removed > 0).any()):
            keep, valid = compact(context.valid)
            return Selection(keep=keep, valid=valid, scores=torch.ones_like(scores))
        ids, live = compact(context.valid)
        rows = torch.arange(ids.shape[0], device=ids.device).unsqueeze(1)
        metric = context.signals[Signal.KEY].mean(1)[rows, ids.clamp(min=0)]
        free = live & ~fixed[rows, ids.clamp(min=0)]
        edge, partner = best_edges(metric, free)
        if self.penalty:
            attention = context.signals[Signal.ATTENTION_CLS_ROW].mean(1)[rows, ids.clamp(min=0)]
            factor = self.penalty * self.decay ** abs(self.decay_from - context.layer)
            edge = edge - factor * attention[:, 0::2]
        merged = top_k_mask(edge, removed, edge > float("-inf"))

        batch, pair = merged.nonzero(as_tuple=True)
        source = ids[batch, 2 * pair]
        target = ids[batch, partner[batch, pair]]
        chosen = context.valid.clone()
        chosen[batch, source] = False
        keep, valid = compact(chosen)
        slot = live_rank(chosen)
        if self.order == "paper":
            odd = live_rank(context.valid).gather(1, keep.clamp(min=0)) % 2
            behind = torch.where(valid, odd * (removed > 0).unsqueeze(-1), 2)
            moved = behind.sort(dim=-1, stable=True).indices
            keep = keep.gather(1, moved)
            batch_of, slot_of = valid.nonzero(as_tuple=True)
            slot[batch_of, keep[batch_of, slot_of]] = slot_of
        assign = torch.full_like(slot, -1)
        assign[batch, source] = slot[batch, target]

        importance = torch.ones_like(scores, dtype=edge.dtype)
        batch, pair = (edge > float("-inf")).nonzero(as_tuple=True)
        importance[batch, ids[batch, 2 * pair]] = -edge[batch, pair]
        return Selection(keep=keep, valid=valid, scores=importance, assign=assign)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        if kept >= tokens:
            return ()
        even, odd = (tokens + 1) // 2, tokens // 2
        first, last = (0, 0) if budget is None else (budget.protect_first, budget.protect_last)
        candidates = len(range(first + first % 2, tokens - last, 2))
        return (
            Norm(layer=layer, rows=tokens, width=shape.head_dim),
            Similarity(layer=layer, rows_a=even, rows_b=odd, width=shape.head_dim),
            ArgmaxRow(layer=layer, rows=even, cols=odd),
            TopK(layer=layer, n=candidates, k=tokens - kept, scope=TopKScope.EDGE),
        )
