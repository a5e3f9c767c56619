"""`MergeTo`: each removed token is averaged into the slot it was assigned to, weighted by size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from topsieve.reduction.reducers.kept_rows import gather_work, gathered
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import Context, ModelShape, Selection
from topsieve.reduction.sparse_map import SparseMap
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Merge


@dataclass(frozen=True)
class MergeTo:
    """Slot = sum of size x token over its group, divided by the group's size: specification `methods-more`, ToMe.

    A token that was assigned to no slot is dropped.
    """

    def reduce(self, selection: Selection, context: Context) -> Reduction:
        plain = gathered(selection, context)
        if selection.assign is None or not bool((selection.assign >= 0).any()):
            return plain
        kept_batch, kept_out = selection.valid.nonzero(as_tuple=True)
        gone_batch, gone_source = (selection.assign >= 0).nonzero(as_tuple=True)
        batch = torch.cat([kept_batch, gone_batch])
        out = torch.cat([kept_out, selection.assign[gone_batch, gone_source]])
        source = torch.cat([selection.keep[kept_batch, kept_out], gone_source])
        share = context.size[batch, source]
        slots = selection.keep.shape[1]
        total = torch.zeros(selection.keep.numel(), dtype=share.dtype, device=share.device)
        total = total.index_add(0, batch * slots + out, share)
        entries = SparseMap.of(batch, out, source, share / total[batch * slots + out])
        return replace(plain, size=total.reshape(selection.keep.shape), maps={"x": entries})

    def work(self, shape: ModelShape, layer: int, tokens: int, kept: int) -> tuple[Op, ...]:
        if kept >= tokens:
            return ()
        gone = tokens - kept
        # How many slots take the removed tokens depends on the data; at most one a token.
        merge = Merge(layer=layer, sources=gone, targets=min(gone, kept), width=shape.width)
        return (*gather_work(shape, layer, tokens, kept), merge)
