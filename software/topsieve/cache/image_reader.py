"""`ImageReader`: in decoding, later layers read those image tokens that one layer attends to, DyCoke's second part."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.cache.roles import CacheContext
from topsieve.reduction.budget import exact
from topsieve.reduction.ordering import top_k_mask
from topsieve.reduction.roles import ModelShape
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import Norm, Similarity, TopK

ATTENTION, CHOSEN = "attention", "chosen"


@dataclass(frozen=True)
class ImageReader:
    """Specification `methods-more`, DyCoke. Text is always read; nothing is removed.

    In `layer` the newest token's attention to the image, mean over all heads, is compared with that by which the image
    tokens were chosen; where their cosine is under `alike`, and for the first token, the int(n x share) largest of the n
    image tokens are chosen anew, of equal ones the first. Layers behind read these.

    Parameters
    ----------
    layer : that chooses; it reads everything.
    share : of the image tokens that later layers read.
    alike : cosine from which on the choice stays.
    """

    layer: int
    share: float
    alike: float

    def chosen(self, context: CacheContext) -> Tensor | None:
        if context.number == 0 or context.segment is None or context.layer < self.layer:
            return None
        image, place = context.segment, context.positions.clamp(min=0)
        if context.layer == self.layer:
            self._choose(context, image, place)
            return None
        taken = context.memory[CHOSEN].gather(1, place.clamp(max=context.memory[CHOSEN].shape[1] - 1)) > 0
        read = ~image | taken
        return read[:, None, None].expand(*context.query.shape[:3], -1)

    def _choose(self, context: CacheContext, image: Tensor, place: Tensor) -> None:
        """Write attention and choice by position, float [R, T], into the memory; the same for all heads of a sequence."""
        heads = context.shape.kv_heads
        query = context.query[:, :, -1]
        scores = torch.einsum("rgd,rnd->rgn", query, context.key) * context.scaling
        seen = context.valid & (context.positions <= context.query_positions[:, -1:])
        shares = scores.masked_fill(~seen.unsqueeze(1), torch.finfo(scores.dtype).min).softmax(-1).mean(1)
        shares = shares.unflatten(0, (-1, heads)).mean(1).repeat_interleave(heads, 0) * image
        counts = torch.tensor([int(exact(self.share) * n) for n in image.sum(-1).tolist()], device=image.device)
        best = top_k_mask(shares, counts, image)
        columns = int(context.initial.max())
        now, choice = (
            torch.zeros((len(image), columns), dtype=shares.dtype, device=image.device).scatter_add(
                1, place.clamp(max=columns - 1), x.to(shares.dtype) * image
            )
            for x in (shares, best)
        )
        before = context.memory.get(ATTENTION)
        if before is not None:
            stays = (torch.cosine_similarity(before, now, dim=-1) >= self.alike).unsqueeze(-1)
            now = torch.where(stays, before, now)
            choice = torch.where(stays, context.memory[CHOSEN], choice)
        context.memory[ATTENTION], context.memory[CHOSEN] = now, choice

    def work(self, shape: ModelShape, layer: int, slots: int, queries: int) -> tuple[Op, ...]:
        """Of `slots` image tokens; the selection is counted for every token, also where the choice stays.

        The attention that is compared is the layer's own, of one query, so it costs nothing to have.
        """
        if layer != self.layer or not slots:
            return ()
        return (
            Norm(layer=layer, rows=1, width=slots),
            Similarity(layer=layer, rows_a=1, rows_b=1, width=slots),
            TopK(layer=layer, n=slots, k=int(exact(self.share) * slots), scope=TopKScope.TOKEN),
        )
