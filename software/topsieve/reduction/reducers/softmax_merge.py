"""`SoftmaxMerge`: a slot is the average of its tokens, weighted by a softmax of their scores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from topsieve.reduction.reducers.merge_to import MergeTo
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import Context, ModelShape, Selection
from topsieve.reduction.sparse_map import SparseMap
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Norm


@dataclass(frozen=True)
class SoftmaxMerge(MergeTo):
    """As `MergeTo`, with weights exp(score) instead of sizes: specification `methods-text`, section 9, learned form."""

    def reduce(self, selection: Selection, context: Context) -> Reduction:
        merged = super().reduce(selection, context)
        if "x" not in merged.maps:
            return merged
        members = merged.maps["x"]
        score = selection.scores[members.batch, members.source]
        group = members.batch * merged.n_out + members.out
        groups = merged.keep.numel()
        largest = score.new_full((groups,), float("-inf")).scatter_reduce(0, group, score, "amax")
        power = (score - largest[group]).exp()
        total = torch.zeros(groups, dtype=power.dtype, device=power.device).index_add(0, group, power)
        return replace(merged, maps={"x": SparseMap(members.batch, members.out, members.source, power / total[group])})

    def work(self, shape: ModelShape, layer: int, tokens: int, kept: int) -> tuple[Op, ...]:
        ops = super().work(shape, layer, tokens, kept)
        # The sums of the units' exponentials are one pass over the scores; the merge divides by them.
        return (Norm(layer=layer, rows=1, width=tokens, p=1), *ops) if ops else ()
