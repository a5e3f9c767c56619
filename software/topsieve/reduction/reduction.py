"""`Reduction`: the one result of every method, a sparse linear map over tokens with its bookkeeping.

Source: specification `reduction-interface`, sections 4.1 and 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Axis = Literal["token", "head", "page", "channel", "phrase"]


@dataclass(frozen=True)
class SparseMap:
    """A batched sparse matrix in coordinate form: y[batch, out] = sum of weight * x[batch, source].

    `batch`, `out`, `source` are int64 [E]; `weight` is float [E]. Entries are sorted by (batch, out, source).
    """

    batch: Tensor
    out: Tensor
    source: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Reduction:
    """B rows of `n_in` tokens become K slots.

    Parameters
    ----------
    n_in : tokens (padded) before.
    keep : int64 [B, K], source of each slot; -1 for a synthetic slot and for padding.
    valid : bool [B, K], slots that hold a token.
    positions : int64 [B, K], original position of each slot, -1 for padding.
    size : float [B, K], input tokens each slot stands for, 0 for padding.
    maps : by role ("x" for features, "k", "v"); an absent role is the plain gather of `keep`.
    scores : float [B, n_in], what was decided by.
    axis : what the ids number.
    """

    n_in: int
    keep: Tensor
    valid: Tensor
    positions: Tensor
    size: Tensor
    scores: Tensor
    maps: Mapping[str, SparseMap] = field(default_factory=dict)
    axis: Axis = "token"

    def map(self, role: str = "x") -> SparseMap:
        """The map of `role`; where none was given, the 0/1 gather of `keep`."""
        if role in self.maps:
            return self.maps[role]
        live = self.valid & (self.keep >= 0)
        batch, out = live.nonzero(as_tuple=True)
        source = self.keep[batch, out]
        return SparseMap(batch, out, source, torch.ones(source.shape, dtype=self.size.dtype, device=source.device))
