"""`MergeNext`: the value that goes is shared out among the next ones, CaM's merge."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from topsieve.cache.reducers.nearest import evicted
from topsieve.cache.roles import CacheContext
from topsieve.reduction.reducers.kept_rows import gathered
from topsieve.reduction.reduction import Reduction
from topsieve.reduction.roles import ModelShape, Selection
from topsieve.reduction.sparse_map import SparseMap
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Merge


@dataclass(frozen=True)
class MergeNext:
    """v_e / m is added to each of the m kept values behind e with probability p: specification `methods-more`, CaM.

    p = clamp(A_e / mean of A over those m, 0, 1), A the accumulated attention (`context.state`). Keys do not change.
    Only passes after the prompt merge: what a prompt has too much goes at once, and hundreds of values would meet in a few.

    Parameters
    ----------
    targets : m; fewer where fewer slots follow.
    expected : add p x v_e / m instead of drawing.
    """

    targets: int = 16
    expected: bool = False

    def reduce(self, selection: Selection, context: CacheContext) -> Reduction:
        plain = gathered(selection, context)
        ids, gone = evicted(selection, context)
        if context.number == 0 or not ids.shape[1]:
            return plain
        assert context.state is not None
        kept_row, kept_slot = selection.valid.nonzero(as_tuple=True)
        # The first kept slot behind each evicted one, in slots after the reduction.
        first = torch.searchsorted(
            selection.keep.masked_fill(~selection.valid, context.valid.shape[1]), ids.clamp(min=0), right=True
        )
        offset = torch.arange(self.targets, device=ids.device)
        target = first.unsqueeze(-1) + offset  # [R, E, m]
        there = gone.unsqueeze(-1) & (target < selection.valid.sum(-1)[:, None, None])
        count = there.sum(-1)
        attention = context.state.gather(1, selection.keep.clamp(min=0))
        wide = attention.gather(1, target.clamp(max=attention.shape[1] - 1).flatten(1)).reshape(target.shape)
        mean = (wide * there).sum(-1) / count.clamp(min=1)
        own = context.state.gather(1, ids.clamp(min=0))
        share = (own / mean.clamp(min=torch.finfo(mean.dtype).tiny)).clamp(0, 1)
        if not self.expected:
            share = (self._draws(ids, context) < share).to(share.dtype)
        weight = share / count.clamp(min=1)
        row, place, number = (there & (weight > 0).unsqueeze(-1)).nonzero(as_tuple=True)
        entries = SparseMap.of(
            torch.cat([kept_row, row]),
            torch.cat([kept_slot, target[row, place, number]]),
            torch.cat([selection.keep[kept_row, kept_slot], ids[row, place]]),
            torch.cat([torch.ones_like(attention[kept_row, kept_slot]), weight[row, place]]),
        )
        return replace(plain, maps={"v": entries})

    def _draws(self, ids: Tensor, context: CacheContext) -> Tensor:
        """float [R, E] in [0, 1), by seed, layer, head and position: the same whatever else is in the batch."""
        heads = context.shape.kv_heads
        positions = context.positions.gather(1, ids.clamp(min=0))
        generator = torch.Generator().manual_seed(context.seed * 1_000_003 + context.layer)
        longest = max(int(positions.max()) + 1, 1)
        table = torch.rand((longest, heads), generator=generator, dtype=torch.float64).T.to(ids.device)
        rows = torch.arange(len(ids), device=ids.device) % heads
        return table[rows].gather(1, positions.clamp(min=0))

    def work(self, shape: ModelShape, layer: int, slots: int, kept: int) -> tuple[Op, ...]:
        gone = slots - kept
        if gone <= 0:
            return ()
        targets = min(self.targets, kept)
        return (
            Merge(
                layer=layer,
                sources=shape.kv_heads * gone * targets,
                targets=shape.kv_heads * targets,
                width=shape.head_dim,
                divide=False,
            ),
        )
