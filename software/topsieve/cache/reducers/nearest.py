"""`MergeNearest`: what goes is added to the most similar key that stays, if it is similar enough, D2O's merge."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from topsieve.cache.roles import CacheContext
from topsieve.reduction.ordering import compact
from topsieve.reduction.reducers.kept_rows import gathered
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import ModelShape, Selection
from topsieve.reduction.sparse_map import SparseMap
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import ArgmaxRow, Merge, Norm, Similarity, Threshold

GATE = "gate"


def evicted(selection: Selection, context: CacheContext) -> tuple[Tensor, Tensor]:
    """Live slots that do not stay, ascending: ids int64 [R, E] (-1 for padding) and valid bool [R, E]."""
    gone = context.valid.clone()
    row, slot = selection.valid.nonzero(as_tuple=True)
    gone[row, selection.keep[row, slot]] = False
    return compact(gone)


@dataclass(frozen=True)
class MergeNearest:
    """k_t <- (k_t + sum m_i k_i) / (1 + count), and the values alike: specification `methods-more`, D2O.

    m_i is the cosine of the evicted key i to its nearest kept key t (of equal ones the oldest). The i-th evicted slot of
    all heads passes the gate where its m, mean over the heads, reaches the threshold: the mean of all m at first, then
    alpha x threshold + beta x mean.

    Parameters
    ----------
    alpha, beta : of the threshold's moving average.
    """

    alpha: float = 0.5
    beta: float = 0.5

    def reduce(self, selection: Selection, context: CacheContext) -> Reduction:
        plain = gathered(selection, context)
        ids, gone = evicted(selection, context)
        if not ids.shape[1]:
            return plain
        rows = torch.arange(len(ids), device=ids.device).unsqueeze(1)
        unit = normalize(context.key.to(torch.float32), dim=-1)
        cosine = unit[rows, ids.clamp(min=0)] @ unit[rows, selection.keep.clamp(min=0)].transpose(1, 2)
        cosine = cosine.masked_fill(~selection.valid.unsqueeze(1), float("-inf"))
        best, target = cosine.amax(-1), cosine.argmax(-1)
        passes = self._gate(best, gone, context)
        row, place = (gone & passes).nonzero(as_tuple=True)
        source, slot, weight = ids[row, place], target[row, place], best[row, place]
        kept_row, kept_slot = selection.valid.nonzero(as_tuple=True)
        count = torch.ones(selection.keep.shape, device=ids.device)
        count.index_put_((row, slot), torch.ones_like(weight), accumulate=True)
        size = plain.size.index_put((row, slot), context.size[row, source].to(plain.size.dtype), accumulate=True)
        entries = SparseMap.of(
            torch.cat([kept_row, row]),
            torch.cat([kept_slot, slot]),
            torch.cat([selection.keep[kept_row, kept_slot], source]),
            torch.cat([1 / count[kept_row, kept_slot], weight / count[row, slot]]),
        )
        return replace(plain, size=size, maps={"k": entries, "v": entries})

    def _gate(self, best: Tensor, gone: Tensor, context: CacheContext) -> Tensor:
        """bool [R, E]: which evicted slots are merged; moves the threshold of each sequence."""
        heads = context.shape.kv_heads
        shaped, live = (x.unflatten(0, (-1, heads)) for x in (best.masked_fill(~gone, 0), gone))
        mean = shaped.sum((1, 2)) / live.sum((1, 2)).clamp(min=1)
        before = context.memory.get(GATE)
        threshold = mean if before is None else self.alpha * before.reshape(-1, heads)[:, 0] + self.beta * mean
        # A sequence that evicts nothing in this pass leaves its threshold alone.
        if before is not None:
            threshold = torch.where(live.any(-1).any(-1), threshold, before.reshape(-1, heads)[:, 0])
        context.memory[GATE] = threshold.repeat_interleave(heads)
        of_rank = shaped.sum(1) / live.sum(1).clamp(min=1)
        return (of_rank >= threshold.unsqueeze(-1)).repeat_interleave(heads, 0)

    def work(self, shape: ModelShape, layer: int, slots: int, kept: int) -> tuple[Op, ...]:
        gone = slots - kept
        if gone <= 0 or kept <= 0:
            return ()
        rows = shape.kv_heads * gone
        return (
            Norm(layer=layer, rows=shape.kv_heads * slots, width=shape.head_dim),
            Similarity(layer=layer, rows_a=rows, rows_b=kept, width=shape.head_dim),
            ArgmaxRow(layer=layer, rows=rows, cols=kept),
            Threshold(layer=layer, n=gone, kept=gone),
            Merge(layer=layer, sources=rows, targets=min(rows, shape.kv_heads * kept), width=2 * shape.head_dim),
        )
