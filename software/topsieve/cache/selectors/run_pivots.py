"""`RunPivots`: of each run of similar slots the most attended one stays, KVMerger's selection."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.cache.budget import CacheBudget
from topsieve.cache.reducers.runs import runs
from topsieve.cache.roles import CacheContext
from topsieve.cache.selectors.top_slots import always_kept, quotas
from topsieve.reduction.budget import Rounding, exact, rounded
from topsieve.reduction.ordering import compact, live_rank, top_k_mask
from topsieve.reduction.roles import ModelShape, Selection
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import TopK


@dataclass(frozen=True)
class RunPivots:
    """The newest slots and the heavy hitters stay alone; the others merge run by run into the run's best slot.

    Where more slots than the budget are left, the worst of the pivots go with all of their run.

    Parameters
    ----------
    threshold : cosine of successive keys above which a run goes on.
    heavy_share : share of the budget's slots that are heavy hitters.
    """

    threshold: float = 0.75
    heavy_share: float = 0.25

    def select(self, scores: Tensor, budget: CacheBudget, context: CacheContext) -> Selection:
        rows = quotas(budget, context)
        fixed = always_kept(rows, context)
        total = torch.tensor([row.total for row in rows], device=scores.device)
        heavy = torch.tensor([rounded(exact(self.heavy_share) * row.total, Rounding.FLOOR) for row in rows])
        heavy = torch.minimum(heavy.to(scores.device), total - fixed.sum(-1)).clamp(min=0)
        alone = fixed | top_k_mask(scores, heavy, context.valid & ~fixed)
        run = runs(context, self.threshold, context.valid & ~alone)
        best = self._best(scores, run)
        pivot = context.valid & (best == torch.arange(run.shape[1], device=run.device))
        chosen = alone | top_k_mask(scores, total - alone.sum(-1), pivot & ~alone)
        keep, valid = compact(chosen)
        slot = live_rank(chosen)
        goes_to = slot.gather(1, best.clamp(min=0))
        assign = goes_to.masked_fill(chosen | ~context.valid, -1)
        return Selection(keep=keep, valid=valid, scores=scores, assign=assign)

    def _best(self, scores: Tensor, run: Tensor) -> Tensor:
        """int64 [R, N]: the slot of largest score in each slot's run, of equal ones the oldest."""
        slots = torch.arange(run.shape[1], device=run.device).expand(run.shape)
        place = run.clamp(min=0)
        clean = scores.masked_fill(run < 0, float("-inf"))
        top = torch.full_like(clean, float("-inf")).scatter_reduce(1, place, clean, "amax").gather(1, place)
        candidate = torch.where((clean == top) & (run >= 0), slots, run.shape[1])
        return torch.full_like(slots, run.shape[1] - 1).scatter_reduce(1, place, candidate, "amin").gather(1, place)

    def work(self, shape: ModelShape, layer: int, slots: int, kept: int, fixed: int) -> tuple[Op, ...]:
        free = slots - fixed
        heavy = min(rounded(exact(self.heavy_share) * kept, Rounding.FLOOR), free)
        return (TopK(layer=layer, n=free, k=heavy, scope=TopKScope.TOKEN, repeats=shape.kv_heads),) if free else ()
