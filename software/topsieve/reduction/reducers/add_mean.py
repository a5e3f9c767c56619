"""`AddMean`: each slot gets the mean of the tokens assigned to it on top of its own, VisionZip's merging."""

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
class AddMean:
    """Slot = its token + the mean of the tokens assigned to it, so the weights add up to 2: `methods-more`, VisionZip.

    Tokens that are assigned to no slot are dropped.
    """

    def reduce(self, selection: Selection, context: Context) -> Reduction:
        plain = gathered(selection, context)
        if selection.assign is None or not bool((selection.assign >= 0).any()):
            return plain
        kept_batch, kept_out = selection.valid.nonzero(as_tuple=True)
        gone_batch, gone_source = (selection.assign >= 0).nonzero(as_tuple=True)
        gone_out = selection.assign[gone_batch, gone_source]
        slots = selection.keep.shape[1]
        place = gone_batch * slots + gone_out
        total = torch.zeros(selection.keep.numel(), dtype=context.size.dtype, device=context.size.device)
        members = total.index_add(0, place, torch.ones_like(gone_out, dtype=total.dtype))
        entries = SparseMap.of(
            torch.cat([kept_batch, gone_batch]),
            torch.cat([kept_out, gone_out]),
            torch.cat([selection.keep[kept_batch, kept_out], gone_source]),
            torch.cat([torch.ones_like(kept_out, dtype=total.dtype), 1 / members[place]]),
        )
        size = total.index_add(0, place, context.size[gone_batch, gone_source]).reshape(plain.size.shape)
        return replace(plain, size=plain.size + size, maps={"x": entries})

    def work(self, shape: ModelShape, layer: int, tokens: int, kept: int) -> tuple[Op, ...]:
        if kept >= tokens:
            return ()
        # How many slots take the removed tokens depends on the data; at most one a token.
        gone = tokens - kept
        merge = (Merge(layer=layer, sources=gone, targets=min(gone, kept), width=shape.width),) if kept else ()
        return (*gather_work(shape, layer, tokens, kept), *merge)
