"""How the query heads of a key-value head become one score (specification `reduction-interface`, section 4.5)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Group = Literal["sum", "mean", "max"]
GROUPS: tuple[Group, ...] = ("sum", "mean", "max")


def folded(x: Tensor, group: Group) -> Tensor:
    """`x` float [R, G, ...] over G."""
    if group == "max":
        return x.amax(1)
    return x.sum(1) if group == "sum" else x.mean(1)


def over_heads(x: Tensor, kv_heads: int) -> Tensor:
    """`x` float [R, ...] as its mean over the heads of each sequence, repeated for each head."""
    rows = x.unflatten(0, (-1, kv_heads))
    return rows.mean(1, keepdim=True).expand(rows.shape).flatten(0, 1)


def pooled(x: Tensor, window: int, kind: Literal["average", "maximum"], valid: Tensor) -> Tensor:
    """Each score of `x` float [R, N] with its neighbours, the same length; slots that are not live count as zeros."""
    if window <= 1:
        return x
    x = x.masked_fill(~valid, 0).unsqueeze(1)
    if kind == "average":
        return torch.nn.functional.avg_pool1d(x, window, 1, window // 2).squeeze(1)
    return torch.nn.functional.max_pool1d(x, window, 1, window // 2).squeeze(1)
