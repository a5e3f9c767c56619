"""`SparseMap`: a batched sparse matrix over tokens, in coordinate form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SparseMap:
    """y[batch, out] = sum over its entries of weight * x[batch, source].

    `batch`, `out`, `source` are int64 [E]; `weight` is float [E]. Entries are sorted by (batch, out, source) and
    no entry occurs twice.
    """

    batch: Tensor
    out: Tensor
    source: Tensor
    weight: Tensor

    @classmethod
    def of(cls, batch: Tensor, out: Tensor, source: Tensor, weight: Tensor) -> SparseMap:
        """A map of entries in any order; those at the same place are added up."""
        if not batch.numel():
            return cls(batch, out, source, weight)
        places, which = torch.stack([batch, out, source]).unique(dim=1, sorted=True, return_inverse=True)  # type: ignore[no-untyped-call]
        total = torch.zeros(places.shape[1], dtype=weight.dtype, device=weight.device).index_add(0, which, weight)
        return cls(places[0], places[1], places[2], total)

    def apply(self, x: Tensor, n_out: int) -> Tensor:
        """[B, n_in, ...] to [B, n_out, ...] in the dtype of `x`; sums run in the wider of its and the weights' dtype."""
        wide = torch.promote_types(x.dtype, self.weight.dtype)
        weight = self.weight.to(wide).reshape((-1,) + (1,) * (x.dim() - 2))
        rows = x[self.batch, self.source].to(wide) * weight
        flat = torch.zeros((x.shape[0] * n_out, *x.shape[2:]), dtype=wide, device=x.device)
        summed = flat.index_add(0, self.batch * n_out + self.out, rows)
        return summed.reshape((x.shape[0], n_out, *x.shape[2:])).to(x.dtype)

    def after(self, first: SparseMap, n_between: int) -> SparseMap:
        """The product self x first, where `first` ends in `n_between` slots."""
        starts_at = first.batch * n_between + first.out
        wanted = self.batch * n_between + self.source
        begin = torch.searchsorted(starts_at, wanted)
        count = torch.searchsorted(starts_at, wanted, right=True) - begin
        mine = torch.arange(wanted.numel(), device=wanted.device).repeat_interleave(count)
        within = torch.arange(mine.numel(), device=wanted.device) - (count.cumsum(0) - count).repeat_interleave(count)
        theirs = begin.repeat_interleave(count) + within
        dtype = torch.promote_types(self.weight.dtype, first.weight.dtype)
        weight = self.weight[mine].to(dtype) * first.weight[theirs].to(dtype)
        return SparseMap.of(self.batch[mine], self.out[mine], first.source[theirs], weight)

    def is_gather(self, live: Tensor) -> bool:
        """Whether each slot of `live` (bool [B, K]) has exactly one entry, and all weights are 1."""
        entries = torch.zeros(live.numel(), dtype=torch.int64, device=live.device)
        entries = entries.index_add(0, self.batch * live.shape[1] + self.out, torch.ones_like(self.out))
        return bool((entries.reshape(live.shape) == live).all()) and bool((self.weight == 1).all())
