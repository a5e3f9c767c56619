"""Core context aware attention: far context pooled group by group, near context whole, one softmax over both.

Specification `methods-vision`, section 13.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Merge, ProbabilityValue, QueryKey, Similarity, Softmax


def pooled_groups(query: Tensor, key: Tensor, value: Tensor, group: int, pools: int) -> tuple[Tensor, Tensor]:
    """Keys and values [B, H, pools, d]: of each group, weighted by the attention of its last query.

    Parameters
    ----------
    query, key, value : float [B, H, N, d], with as many key heads as query heads.
    """
    shape = (*key.shape[:2], pools, group, key.shape[-1])
    keys, values = (x[:, :, : pools * group].reshape(shape) for x in (key, value))
    last = query[:, :, group - 1 : pools * group : group].unsqueeze(3)
    weight = ((last * keys).sum(-1) * key.shape[-1] ** -0.5).softmax(-1).unsqueeze(-1)
    return (weight * keys).sum(3), (weight * values).sum(3)


def visible(tokens: int, group: int, window: int, variant: Literal["paper", "official"] = "paper") -> Tensor:
    """bool [N, pools + N]: what each query sees.

    Parameters
    ----------
    variant : "paper": pools and window tile the past exactly once. "official": as the published kernel has it; the window
        of row r (from 1) holds the newest r mod group + window columns, and the first pool is seen from row window + 1
        on, so some rows see its keys twice. For windows that are no multiple of the group, the windows differ too.
    """
    pools = max((tokens - window) // group, 0)
    row = torch.arange(1, tokens + 1).unsqueeze(1)
    column, pool = torch.arange(1, tokens + 1), torch.arange(1, pools + 1)
    if variant == "official" and pools:
        near = (column > row - (row % group + window)) & (column <= row)
        # The published test divides towards zero: the first pool counts as filled as soon as the row is behind the window.
        far = (row > window) & (pool <= (row - window).div(group, rounding_mode="floor").clamp(min=1))
        return torch.cat([far, near], dim=1)
    pooled = ((row - window).div(group, rounding_mode="floor")).clamp(min=0)
    near = (column > pooled * group) & (column <= row)
    return torch.cat([pool <= pooled, near], dim=1)


def core_context_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    group: int = 16,
    window: int = 1024,
    variant: Literal["paper", "official"] = "paper",
) -> Tensor:
    """Attention of [B, H, N, d] over pools and window: [B, H, N, d]. Short sequences are plain causal attention."""
    tokens = query.shape[2]
    pools = max((tokens - window) // group, 0)
    pooled_key, pooled_value = pooled_groups(query, key, value, group, pools)
    keys, values = torch.cat([pooled_key, key], dim=2), torch.cat([pooled_value, value], dim=2)
    scores = query @ keys.transpose(2, 3) * query.shape[-1] ** -0.5
    hidden = ~visible(tokens, group, window, variant).to(query.device)
    return scores.masked_fill(hidden, float("-inf")).softmax(-1) @ values


class CoreContextCache:
    """The cache of a layer in decoding: pooled groups, and the newest tokens whole. Specification `methods-vision`, 13.2.

    A token that fills a group beyond the window makes the oldest `group` tokens one pooled entry.

    Parameters
    ----------
    trims : give up what was pooled. The published code never does in its layers 0 and 1, whose pools are then all of the
        first group.
    """

    def __init__(self, group: int = 16, window: int = 1024, *, trims: bool = True) -> None:
        self.group, self.window, self.trims = group, window, trims
        self.seen = 0
        self._whole: tuple[Tensor, Tensor, Tensor] | None = None
        self._pools: list[tuple[Tensor, Tensor]] = []
        self._pooled = 0

    @property
    def held(self) -> int:
        """Keys that are stored: pools and whole ones."""
        return self._pooled + (0 if self._whole is None else self._whole[1].shape[2])

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Append a prompt or one token, [B, H, N, d] each, and attend: [B, H, N, d].

        Raises
        ------
        ValueError
            several tokens behind a prompt.
        """
        new, before = query.shape[2], self.seen
        if before and new > 1:
            raise ValueError("tokens behind a prompt come one by one")
        self.seen += new
        rows = (query, key, value)
        self._whole = rows if self._whole is None else self._joined(rows)
        if not before:
            out = core_context_attention(query, key, value, self.group, self.window)
            self._pool(max((new - self.window) // self.group, 0))
            return out
        if self.seen > self.window and (self.seen - self.window) % self.group == 0:
            self._pool(1)
        keys, values = self._whole[1], self._whole[2]
        near = self.seen - self._pooled * self.group
        parts = [*self._pools, (keys[:, :, keys.shape[2] - near :], values[:, :, values.shape[2] - near :])]
        keys, values = (torch.cat(column, dim=2) for column in zip(*parts, strict=True))
        scores = query @ keys.transpose(2, 3) * query.shape[-1] ** -0.5
        return scores.softmax(-1) @ values

    def _joined(self, rows: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        assert self._whole is not None
        query, key, value = (torch.cat(pair, dim=2) for pair in zip(self._whole, rows, strict=True))
        return query, key, value

    def _pool(self, groups: int) -> None:
        """Make the oldest tokens that are stored whole `groups` more pools."""
        if not groups:
            return
        assert self._whole is not None
        self._pools.append(pooled_groups(*self._whole, self.group, groups))
        self._pooled += groups
        if self.trims:
            query, key, value = (x[:, :, groups * self.group :].clone() for x in self._whole)
            self._whole = query, key, value


def core_context_work(
    heads: int, tokens: int, head_dim: int, group: int = 16, window: int = 1024, layer: int = 0
) -> tuple[Op, ...]:
    """The pooling, and attention block by block: rows that see the same number of pools work as one."""
    pools = max((tokens - window) // group, 0)
    ops: list[Op] = []
    if pools:
        ops.append(Similarity(layer=layer, rows_a=1, rows_b=pools * group, width=heads * head_dim))
        ops.append(Merge(layer=layer, sources=2 * pools * group, targets=2 * pools, width=heads * head_dim))
    first = 0
    while first < tokens:
        pooled = max((first + 1 - window) // group, 0)
        rows = min(tokens, window + group - 1 if not pooled else first + group) - first
        keys = pooled + first + rows - pooled * group
        sizes = {"layer": layer, "heads": heads}
        ops.append(QueryKey(**sizes, kv_heads=heads, queries=rows, keys=keys, head_dim=head_dim, causal=True))
        ops.append(Softmax(**sizes, rows=rows, cols=keys))
        ops.append(ProbabilityValue(**sizes, kv_heads=heads, queries=rows, keys=keys, kept=keys, head_dim=head_dim))
        first += rows
    return tuple(ops)
