"""`DensityPeaks`: of what top-k would drop, the best are clustered around a few of them, SparseVLM's recycling."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from topsieve.reduction.budget import Budget
from topsieve.reduction.ordering import compact, live_rank, top_k_mask
from topsieve.reduction.roles import Context, ModelShape, Selection, Signal
from topsieve.reduction.selectors.counting import compared, keep_counts, protected
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import ArgmaxRow, Similarity, TopK


def clustered(x: Tensor, centres: int) -> tuple[Tensor, Tensor]:
    """Density-peak clusters of x [n, C]: ids of the centres, ascending, and for each token the number of its centre.

    Distance |x_i - x_j| / sqrt(C); density exp(-mean of the `centres` smallest squared distances, its own 0 included);
    separation the smallest distance to a denser token, for the densest its largest distance. The centres have the
    largest separation x density; each other token goes to the nearest centre. Of equal ones the lowest index.
    """
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") / x.shape[1] ** 0.5
    density = (-(distance**2).sort(dim=1).values[:, :centres].mean(1)).exp()
    denser = density.unsqueeze(0) > density.unsqueeze(1)
    separation = distance.masked_fill(~denser, float("inf")).amin(1)
    separation = torch.where(denser.any(1), separation, distance.amax(1))
    chosen = top_k_mask(
        (separation * density)[None],
        torch.tensor([centres], device=x.device),
        torch.ones_like(density, dtype=torch.bool)[None],
    )[0]
    ids = chosen.nonzero().flatten()
    number = distance[:, ids].argmin(1)
    number[ids] = torch.arange(len(ids), device=ids.device)
    return ids, number


@dataclass(frozen=True)
class DensityPeaks:
    """Top-k; of the m others the best int(m x share) + 1 form int(that / 10) + 1 clusters: `methods-more`, SparseVLM.

    A cluster stands at its centre's place. The published code puts the clusters behind the kept image tokens, adds
    random noise of 1e-6 to the densities and divides by the count + 1e-6.

    Parameters
    ----------
    share : of what would be dropped, how much is recycled; 0 recycles nothing.
    per_cluster : tokens a cluster, roughly.
    """

    share: Fraction
    per_cluster: int = 10

    def _recycled(self, dropped: int) -> tuple[int, int]:
        """Tokens recycled and clusters."""
        if not self.share or dropped < 1:
            return 0, 0
        tokens = min(int(dropped * self.share) + 1, dropped)
        return tokens, min(tokens // self.per_cluster + 1, tokens)

    def select(self, scores: Tensor, budget: Budget, context: Context) -> Selection:
        fixed = protected(budget, context)
        free = context.valid & ~fixed
        chosen = fixed | top_k_mask(scores, keep_counts(budget, context) - fixed.sum(-1), free)
        target = torch.full_like(context.positions, -1)
        hidden = context.signals[Signal.HIDDEN]
        for row in range(len(scores)):
            dropped = free[row] & ~chosen[row]
            tokens, clusters = self._recycled(int(dropped.sum()))
            if not clusters:
                continue
            count = torch.tensor([tokens], device=scores.device)
            ids = top_k_mask(scores[row][None], count, dropped[None])[0].nonzero().flatten()
            centres, number = clustered(hidden[row, ids], clusters)
            chosen[row, ids[centres]] = True
            target[row, ids] = ids[centres][number]
            target[row, ids[centres]] = -1
        keep, valid = compact(chosen)
        assign = torch.where(target >= 0, live_rank(chosen).gather(1, target.clamp(min=0)), -1)
        return Selection(keep=keep, valid=valid, scores=scores, assign=assign)

    def work(
        self, shape: ModelShape, layer: int, tokens: int, kept: int, budget: Budget | None = None
    ) -> tuple[Op, ...]:
        n, fixed = compared(tokens, budget)
        if kept >= tokens or budget is None:
            return ()
        # The tokens kept by score, of which `kept` knows only the sum with the clusters.
        best = next((k for k in range(kept - fixed + 1) if k + self._recycled(n - k)[1] == kept - fixed), kept - fixed)
        recycled, clusters = self._recycled(n - best)
        ops: tuple[Op, ...] = (TopK(layer=layer, n=n, k=best, scope=TopKScope.TOKEN),)
        if clusters:
            ops += (
                TopK(layer=layer, n=n - best, k=recycled, scope=TopKScope.EDGE),
                Similarity(layer=layer, rows_a=recycled, rows_b=recycled, width=shape.width),
                TopK(layer=layer, n=recycled, k=clusters, scope=TopKScope.EDGE, repeats=recycled),
                ArgmaxRow(layer=layer, rows=recycled, cols=recycled),
                TopK(layer=layer, n=recycled, k=clusters, scope=TopKScope.EDGE),
                ArgmaxRow(layer=layer, rows=recycled, cols=clusters),
            )
        return ops
