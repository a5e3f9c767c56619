"""Core context aware attention: far context pooled group by group, near context whole, one softmax over both.

Specification `methods-vision`, sections 13.1 and 13.3.
"""

from __future__ import annotations

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


def visible(tokens: int, group: int, window: int) -> Tensor:
    """bool [N, pools + N]: what each query sees; pools and window tile its past exactly once."""
    pools = max((tokens - window) // group, 0)
    row = torch.arange(1, tokens + 1).unsqueeze(1)
    pooled = ((row - window).div(group, rounding_mode="floor")).clamp(min=0)
    column = torch.arange(1, tokens + 1)
    near = (column > pooled * group) & (column <= row)
    return torch.cat([torch.arange(1, pools + 1) <= pooled, near], dim=1)


def core_context_attention(query: Tensor, key: Tensor, value: Tensor, group: int = 16, window: int = 1024) -> Tensor:
    """Attention of [B, H, N, d] over pools and window: [B, H, N, d]. Short sequences are plain causal attention."""
    tokens = query.shape[2]
    pools = max((tokens - window) // group, 0)
    pooled_key, pooled_value = pooled_groups(query, key, value, group, pools)
    keys, values = torch.cat([pooled_key, key], dim=2), torch.cat([pooled_value, value], dim=2)
    scores = query @ keys.transpose(2, 3) * query.shape[-1] ** -0.5
    hidden = ~visible(tokens, group, window).to(query.device)
    return scores.masked_fill(hidden, float("-inf")).softmax(-1) @ values


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
