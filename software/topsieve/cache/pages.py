"""`QueryPages`: each query reads the pages whose keys could match it best, Quest's reading."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.cache.budget import CacheBudget
from topsieve.cache.roles import CacheContext
from topsieve.reduction.ordering import top_k_mask
from topsieve.reduction.roles import ModelShape
from topsieve_sim.trace import Op, TopKScope
from topsieve_sim.trace.ops import Similarity, TopK

FEWEST_PAGES = 3


@dataclass(frozen=True)
class QueryPages:
    """Specification `methods-more`, Quest. Pages are of positions: page p holds p x page_size and what follows.

    The bound of a page is the sum over channels of max(q min, q max) over its keys' minima and maxima; each query head
    reads max(3, budget // page_size) pages, of equal bounds the first. The prompt reads everything.

    Parameters
    ----------
    budget : slots to read.
    page_size : slots of a page.
    skip_layers : layers near the input that read everything.
    """

    budget: CacheBudget
    page_size: int = 16
    skip_layers: int = 2

    def pages_read(self, prompt: int) -> int:
        """Pages that a query head reads."""
        return max(FEWEST_PAGES, self.budget.total(prompt) // self.page_size)

    def chosen(self, context: CacheContext) -> Tensor | None:
        if context.number == 0 or context.layer < self.skip_layers:
            return None
        page = context.positions.clamp(min=0) // self.page_size
        pages = int(page.max()) + 1
        bound, exists = self.bounds(context, page, pages)
        rows, groups, queries, _ = bound.shape
        wanted = torch.tensor([self.pages_read(prompt) for prompt in context.initial.tolist()], device=bound.device)
        flat = bound.reshape(-1, pages)
        live = exists[:, None, None].expand(bound.shape).reshape(flat.shape)
        taken = top_k_mask(flat, wanted.repeat_interleave(groups * queries), live).reshape(bound.shape)
        return taken.gather(3, page[:, None, None].expand(rows, groups, queries, -1))

    def bounds(self, context: CacheContext, page: Tensor, pages: int) -> tuple[Tensor, Tensor]:
        """float [R, G, Q, P] upper bounds of the scores (unscaled), and bool [R, P], pages with a live slot."""
        key = context.key
        place = page.unsqueeze(-1).expand(key.shape)
        shape = (len(key), pages, key.shape[-1])
        live = context.valid.unsqueeze(-1)
        low = key.new_full(shape, float("inf")).scatter_reduce(1, place, key.masked_fill(~live, float("inf")), "amin")
        high = key.new_full(shape, float("-inf"))
        high = high.scatter_reduce(1, place, key.masked_fill(~live, float("-inf")), "amax")
        exists = high[..., 0] > float("-inf")
        low, high = low.masked_fill(~exists.unsqueeze(-1), 0), high.masked_fill(~exists.unsqueeze(-1), 0)
        # max(q min, q max) is q max where q is positive and q min where it is not.
        positive, negative = context.query.clamp(min=0), context.query.clamp(max=0)
        bound = positive @ high.unsqueeze(1).transpose(2, 3) + negative @ low.unsqueeze(1).transpose(2, 3)
        return bound, exists

    def work(self, shape: ModelShape, layer: int, slots: int, queries: int) -> tuple[Op, ...]:
        if layer < self.skip_layers:
            return ()
        pages = -(-slots // self.page_size)
        # The prompt's length is not known here; a decoding pass over it reads the same share.
        wanted = min(self.pages_read(slots), pages)
        rows = shape.heads * queries
        return (
            Similarity(layer=layer, rows_a=rows, rows_b=2 * pages, width=shape.head_dim),
            TopK(layer=layer, n=pages, k=wanted, scope=TopKScope.TOKEN, repeats=rows),
        )
