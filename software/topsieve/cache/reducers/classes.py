"""`MergeClasses`: the best of what goes is averaged into similar slots that stay, EMS's merge with a zero class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from topsieve.cache.reducers.nearest import evicted
from topsieve.cache.roles import CacheContext
from topsieve.cache.rotary import Rotary
from topsieve.reduction.budget import exact
from topsieve.reduction.ordering import top_k_mask
from topsieve.reduction.reducers.kept_rows import gathered
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import ModelShape, Selection
from topsieve.reduction.sparse_map import SparseMap
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import ArgmaxRow, Merge, Norm, Similarity, Threshold, TopK

EPSILON = 1e-8


@dataclass(frozen=True)
class MergeClasses:
    """Specification `methods-text`, section 1, steps 4 to 7.

    Of the evicted slots the `gamma` x N_imp best are candidates (N_imp: kept slots before the window). Each goes to the
    kept slot of the largest cos(key) x cos(value), or to the zero class, which is dropped, where that is under `tau`.
    Values become averages weighted by score; keys the averaged direction at the centre's length ("centre") or at the
    averaged length ("mean"). Scores add up.

    Parameters
    ----------
    window : newest slots, which take no merges.
    gamma, tau : see above.
    merge_norm : length of a merged key.
    clamp_negative_cos : two negative cosines make no similarity.
    before_rotation : compare keys without their rotary positions.
    """

    window: int = 32
    gamma: float = 1.0
    tau: float = 0.6
    merge_norm: Literal["centre", "mean"] = "centre"
    clamp_negative_cos: bool = False
    before_rotation: bool = False

    def reduce(self, selection: Selection, context: CacheContext) -> Reduction:
        plain = gathered(selection, context)
        ids, gone = evicted(selection, context)
        slots = selection.valid.sum(-1)
        last = torch.minimum(slots, torch.full_like(slots, self.window))
        important = (
            torch.arange(selection.keep.shape[1], device=ids.device) < (slots - last).unsqueeze(-1)
        ) & selection.valid
        counts = torch.tensor([int(exact(self.gamma) * n) for n in important.sum(-1).tolist()], device=ids.device)
        if not ids.shape[1] or not bool(important.any()):
            return plain
        scores = selection.scores.to(torch.float32)
        candidate = top_k_mask(scores.gather(1, ids.clamp(min=0)), counts, gone)
        likeness = self._likeness(ids, selection.keep, context).masked_fill(~important.unsqueeze(1), float("-inf"))
        best, centre = likeness.amax(-1), likeness.argmax(-1)
        row, place = (candidate & (best >= self.tau)).nonzero(as_tuple=True)
        source, slot = ids[row, place], centre[row, place]
        kept_row, kept_slot = selection.valid.nonzero(as_tuple=True)
        kept_source = selection.keep[kept_row, kept_slot]
        rows, out, sources = torch.cat([kept_row, row]), torch.cat([kept_slot, slot]), torch.cat([kept_source, source])
        # A slot that nobody attended to still is itself: what nothing was merged into stays as it was.
        share = scores[rows, sources].clamp(min=torch.finfo(torch.float32).tiny)
        total = torch.zeros(selection.keep.shape, device=ids.device).index_put((rows, out), share, accumulate=True)
        weight = share / total[rows, out]
        members = torch.zeros_like(total).index_put((rows, out), torch.ones_like(share), accumulate=True)
        weight = torch.where(members[rows, out] == 1, torch.ones_like(weight), weight)
        values = SparseMap.of(rows, out, sources, weight)
        keys = SparseMap.of(
            rows, out, sources, self._key_weights(rows, out, sources, weight, members, selection, context)
        )
        adding = SparseMap.of(rows, out, sources, torch.ones_like(weight))
        size = torch.zeros_like(plain.size).index_put(
            (rows, out), context.size[rows, sources].to(plain.size.dtype), accumulate=True
        )
        return replace(plain, size=size, maps={"k": keys, "v": values, "state": adding})

    def _likeness(self, ids: Tensor, keep: Tensor, context: CacheContext) -> Tensor:
        """float [R, E, K]: cosine of keys times cosine of values."""
        rows = torch.arange(len(ids), device=ids.device).unsqueeze(1)
        key, value = context.key.to(torch.float32), context.value.to(torch.float32)
        if self.before_rotation and isinstance(context.rotary, Rotary):
            key = context.rotary.turned(key, -context.positions.clamp(min=0))
        cosines = []
        for x in (key, value):
            unit = normalize(x, dim=-1, eps=EPSILON)
            cosines.append(unit[rows, ids.clamp(min=0)] @ unit[rows, keep.clamp(min=0)].transpose(1, 2))
        if self.clamp_negative_cos:
            cosines = [cosine.clamp(min=0) for cosine in cosines]
        return cosines[0] * cosines[1]

    def _key_weights(
        self,
        rows: Tensor,
        out: Tensor,
        sources: Tensor,
        weight: Tensor,
        members: Tensor,
        selection: Selection,
        context: CacheContext,
    ) -> Tensor:
        """Weights that make the direction the average of unit keys, and the length as `merge_norm` says."""
        key = context.key.to(torch.float32)
        length = key.norm(dim=-1).clamp(min=EPSILON)
        unit_weight = weight / length[rows, sources]
        direction = torch.zeros((*selection.keep.shape, key.shape[-1]), device=key.device)
        direction = direction.index_put((rows, out), key[rows, sources] * unit_weight.unsqueeze(-1), accumulate=True)
        if self.merge_norm == "centre":
            wanted = length.gather(1, selection.keep.clamp(min=0))
        else:
            wanted = torch.zeros_like(members).index_put((rows, out), weight * length[rows, sources], accumulate=True)
        factor = wanted / direction.norm(dim=-1).clamp(min=EPSILON)
        return torch.where(members[rows, out] == 1, torch.ones_like(weight), unit_weight * factor[rows, out])

    def work(self, shape: ModelShape, layer: int, slots: int, kept: int) -> tuple[Op, ...]:
        gone, centres = slots - kept, kept - self.window
        if gone <= 0 or centres <= 0:
            return ()
        candidates = min(gone, int(exact(self.gamma) * centres))
        if not candidates:
            return ()
        heads, width = shape.kv_heads, shape.head_dim
        return (
            TopK(layer=layer, n=gone, k=candidates, scope=TopKScope.TOKEN, repeats=heads),
            Norm(layer=layer, rows=2 * heads * (candidates + centres), width=width),
            Similarity(layer=layer, rows_a=heads * candidates, rows_b=centres, width=2 * width),
            ArgmaxRow(layer=layer, rows=heads * candidates, cols=centres),
            Threshold(layer=layer, n=heads * candidates, kept=heads * candidates),
            Merge(layer=layer, sources=heads * candidates, targets=heads * min(candidates, centres), width=2 * width),
        )
