"""`MergeRuns`: successive slots with similar keys become one, KVMerger's merge."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from topsieve.cache.roles import CacheContext
from topsieve.reduction.ordering import live_rank
from topsieve.reduction.reducers.kept_rows import gathered
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import ModelShape, Selection
from topsieve.reduction.sparse_map import SparseMap
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Merge, Norm, Similarity


def runs(context: CacheContext, threshold: float, free: Tensor) -> Tensor:
    """int64 [R, N]: number of the run each live slot belongs to; -1 where not live.

    A run goes on from one live slot to the next where both are free and the cosine of their keys is over the threshold.
    The live slots of a row must stand side by side.
    """
    unit = normalize(context.key.to(torch.float32), dim=-1)
    cosine = (unit[:, 1:] * unit[:, :-1]).sum(-1)
    goes_on = torch.zeros_like(free)
    goes_on[:, 1:] = (cosine > threshold) & free[:, 1:] & free[:, :-1]
    return ((~goes_on & context.valid).cumsum(-1) - 1).masked_fill(~context.valid, -1)


def gaussian_weights(context: CacheContext, run: Tensor, pivot_of: Tensor) -> Tensor:
    """float [R, N]: exp(-|k_p - k_i|^2 / (2 sigma^2)), sigma the mean distance in the run; 1 for the pivot.

    `pivot_of` int64 [R, N] is the pivot slot of each slot's run.
    """
    key = context.key.to(torch.float32)
    rows = torch.arange(len(run), device=run.device).unsqueeze(1)
    distance = (key - key[rows, pivot_of]).norm(dim=-1)
    place = run.clamp(min=0)
    live = (run >= 0).to(distance.dtype)
    total = torch.zeros_like(distance).scatter_add(1, place, distance * live)
    count = torch.zeros_like(distance).scatter_add(1, place, live)
    sigma = (total / count.clamp(min=1)).gather(1, place)
    return torch.exp(-(distance**2) / (2 * sigma**2).clamp(min=torch.finfo(distance.dtype).tiny))


@dataclass(frozen=True)
class MergeRuns:
    """k_M = sum g_i k_i / sum g over a run, values alike, at the pivot's place: specification `methods-more`, KVMerger.

    The selection's `assign` names the pivot each removed slot goes to.
    """

    def reduce(self, selection: Selection, context: CacheContext) -> Reduction:
        plain = gathered(selection, context)
        if selection.assign is None or not bool((selection.assign >= 0).any()):
            return plain
        kept_row, kept_slot = selection.valid.nonzero(as_tuple=True)
        kept_source = selection.keep[kept_row, kept_slot]
        row, source = (selection.assign >= 0).nonzero(as_tuple=True)
        slot = selection.assign[row, source]
        chosen = torch.zeros_like(context.valid)
        chosen[kept_row, kept_source] = True
        run = live_rank(chosen)
        run[row, source] = slot
        pivot = selection.keep.clamp(min=0).gather(1, run.clamp(min=0))
        weight = gaussian_weights(context, run, pivot)
        rows, out, sources = torch.cat([kept_row, row]), torch.cat([kept_slot, slot]), torch.cat([kept_source, source])
        share = weight[rows, sources]
        total = torch.zeros(selection.keep.shape, device=rows.device).index_put((rows, out), share, accumulate=True)
        members = torch.zeros_like(total).index_put((rows, out), torch.ones_like(share), accumulate=True)
        alone = members[rows, out] == 1
        entries = SparseMap.of(rows, out, sources, torch.where(alone, torch.ones_like(share), share / total[rows, out]))
        size = torch.zeros_like(plain.size).index_put(
            (rows, out), context.size[rows, sources].to(plain.size.dtype), accumulate=True
        )
        return replace(plain, size=size, maps={"k": entries, "v": entries})

    def work(self, shape: ModelShape, layer: int, slots: int, kept: int) -> tuple[Op, ...]:
        gone = slots - kept
        if gone <= 0 or slots < 2:
            return ()
        rows = shape.kv_heads * slots
        return (
            Norm(layer=layer, rows=rows, width=shape.head_dim),
            Similarity(layer=layer, rows_a=rows, rows_b=1, width=shape.head_dim),
            Similarity(layer=layer, rows_a=shape.kv_heads * gone, rows_b=1, width=shape.head_dim),
            Merge(
                layer=layer,
                sources=shape.kv_heads * gone,
                targets=min(gone, kept) * shape.kv_heads,
                width=2 * shape.head_dim,
            ),
        )
