"""`NeighbourSums`: every kept token takes up its nearest neighbours, the rest become one more token; PruMerge's merging."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from topsieve.reduction.reducers.fuse_rest import FuseRest
from topsieve.reduction.reducers.kept_rows import gather_work
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import Context, ModelShape, Selection, Signal
from topsieve.reduction.selectors.diverse import cosine
from topsieve.reduction.sparse_map import SparseMap
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import Merge, Norm, Similarity, TopK


@dataclass(frozen=True)
class NeighbourSums:
    """Slot i = token i + sum of score x token over its nearest others; then the sum over the rest: `methods-more`, PruMerge.

    Nearness is the cosine of the keys of all heads side by side; other kept tokens count as neighbours too, so a token
    may be in several slots. Weights are not normalised. Neighbours count their tokens in the slot for the rest only.

    Parameters
    ----------
    neighbours : how many.
    first : tokens at the beginning that stay as they are and are nobody's neighbours.
    """

    neighbours: int
    first: int

    def reduce(self, selection: Selection, context: Context) -> Reduction:
        fused = FuseRest().reduce(selection, context)
        if "x" not in fused.maps:
            return fused
        keys = context.signals[Signal.KEY].transpose(1, 2).flatten(2)
        plain = fused.maps["x"]
        parts = [(plain.batch, plain.out, plain.source, plain.weight)]
        for row in range(len(keys)):
            live = context.valid[row].nonzero().flatten()[self.first :]
            slots = (selection.valid[row] & torch.isin(selection.keep[row], live)).nonzero().flatten()
            lost = context.live[row] > selection.valid[row].sum()
            if not len(slots) or not lost:
                continue
            kept = selection.keep[row, slots]
            near = cosine(keys[row, kept], keys[row, live])
            near = near.masked_fill(kept.unsqueeze(1) == live, float("-inf"))
            count = min(self.neighbours, len(live) - 1)
            chosen = live[near.sort(dim=1, descending=True, stable=True).indices[:, :count]]
            source = chosen.flatten()
            out = slots.repeat_interleave(count)
            parts.append((torch.full_like(source, row), out, source, selection.scores[row, source]))
        batch, out, source, weight = (torch.cat(columns) for columns in zip(*parts, strict=True))
        merged = SparseMap.of(batch, out, source, weight)
        return Reduction(
            n_in=fused.n_in,
            keep=fused.keep,
            valid=fused.valid,
            positions=fused.positions,
            size=fused.size,
            scores=fused.scores,
            maps={"x": merged},
        )

    def work(self, shape: ModelShape, layer: int, tokens: int, kept: int) -> tuple[Op, ...]:
        n, slots = tokens - self.first, kept - self.first
        if kept >= tokens:
            return ()
        rest = Merge(layer=layer, sources=tokens - kept, targets=1, width=shape.width, divide=False)
        if slots < 1:
            return (*gather_work(shape, layer, tokens, kept), rest)
        near = min(self.neighbours, n - 1)
        width = shape.heads * shape.head_dim
        return (
            Norm(layer=layer, rows=n, width=width),
            Similarity(layer=layer, rows_a=slots, rows_b=n, width=width),
            TopK(layer=layer, n=n, k=near, scope=TopKScope.EDGE, repeats=slots),
            *gather_work(shape, layer, tokens, kept),
            Merge(layer=layer, sources=slots * near, targets=slots, width=shape.width, divide=False),
            rest,
        )
