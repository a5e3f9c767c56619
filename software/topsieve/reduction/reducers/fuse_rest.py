"""`FuseRest`: all removed tokens become one more token, weighted by score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from topsieve.reduction.reducers.kept_rows import gather_work, gathered
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import Context, ModelShape, Selection
from topsieve.reduction.sparse_map import SparseMap
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Merge


@dataclass(frozen=True)
class FuseRest:
    """After the kept slots, one synthetic slot = sum of score x token over the rest: specification `methods-more`, EViT.

    The weights are not normalised. A sequence that loses no token gets no slot.
    """

    def reduce(self, selection: Selection, context: Context) -> Reduction:
        plain = gathered(selection, context)
        kept_batch, kept_out = selection.valid.nonzero(as_tuple=True)
        kept_source = selection.keep[kept_batch, kept_out]
        rest = context.valid.clone()
        rest[kept_batch, kept_source] = False
        fused = rest.any(-1)
        if not bool(fused.any()):
            return plain
        slot = selection.valid.sum(-1)
        width = int((slot + fused).max())
        more = (0, width - plain.n_out)
        here = fused.unsqueeze(-1) & (torch.arange(width, device=slot.device) == slot.unsqueeze(-1))
        size = pad(plain.size, more)
        size = torch.where(here, (context.size * rest).sum(-1, keepdim=True), size)

        rest_batch, rest_source = rest.nonzero(as_tuple=True)
        weight = selection.scores[rest_batch, rest_source]
        entries = SparseMap.of(
            torch.cat([kept_batch, rest_batch]),
            torch.cat([kept_out, slot[rest_batch]]),
            torch.cat([kept_source, rest_source]),
            torch.cat([torch.ones_like(kept_source, dtype=weight.dtype), weight]),
        )
        return Reduction(
            n_in=plain.n_in,
            keep=pad(plain.keep, more, value=-1),
            valid=pad(plain.valid, more) | here,
            positions=pad(plain.positions, more, value=-1),
            size=size,
            scores=plain.scores,
            maps={"x": entries},
        )

    def work(self, shape: ModelShape, layer: int, tokens: int, kept: int) -> tuple[Op, ...]:
        if kept >= tokens:
            return ()
        merge = Merge(layer=layer, sources=tokens - kept, targets=1, width=shape.width, divide=False)
        return (*gather_work(shape, layer, tokens, kept), merge)
