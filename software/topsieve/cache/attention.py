"""Causal attention over the slots that are left, with the taps that cache methods read.

Probabilities exist for a block of queries at a time, never for the whole prompt. On a GPU whole prompts and single steps go
through `topsieve_kernels`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.cache.roles import Taps
from topsieve.models.attention import QUERY_BLOCK, kept_values, largest, softmax_one
from topsieve.models.kernel_attention import probability_rows, summed_attention
from topsieve.models.kernel_attention import takes as kernels_take
from topsieve.models.quantise import quantise_operands
from topsieve.reduction.ordering import compact
from topsieve.reduction.roles import AttentionPolicy


@dataclass(frozen=True)
class Seen:
    """`output` float [R, G, Q, d] and the taps (see `CacheContext`); `head_sum` float [R, G]; `lsb_rows` int64 [R, G]."""

    output: Tensor
    column_sum: Tensor | None = None
    window: Tensor | None = None
    head_sum: Tensor | None = None
    lsb_rows: Tensor | None = None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    valid: Tensor,
    columns: Tensor,
    query_columns: Tensor,
    live_queries: Tensor,
    heads: Tensor,
    scaling: float,
    taps: Taps,
    policy: AttentionPolicy,
    size: Tensor | None = None,
    chosen: Tensor | None = None,
) -> Seen:
    """Each query over the live slots up to its own column.

    Parameters
    ----------
    query : float [R, G, Q, d]; key, value : float [R, N, d].
    valid : bool [R, N], live slots; columns : int64 [R, N].
    query_columns : int64 [Q]; live_queries : bool [R, Q], queries that the taps see.
    heads : bool [R, G], live heads; the others put out zeros and no tap sees them.
    scaling : of the scores.
    taps : what to read off.
    policy : value pruning, size bias and bits. Value counts are of the keys a query may see.
    size : float [R, N], tokens that each slot stands for; read where the policy has a size bias.
    chosen : bool [R, G, Q, N], slots each query reads; None for all.
    """
    if chosen is None and scaling > 0 and kernels_take(query, key[:, None], value[:, None], policy):
        seen = _through_kernels(
            query, key[:, None], value[:, None], valid, columns, query_columns, live_queries, heads, scaling, taps
        )
        if seen is not None:
            return seen
    wide = torch.promote_types(query.dtype, torch.float32)
    first_key, lsb_rows = key, None
    if policy.bits is not None:
        # Scales look at live items only: queries and slots are told apart by position, so both masks are made equal long.
        query, key, first_key, value = _quantised(query, key, value, valid, live_queries, policy)
        if policy.bits.key_lsb_bits:
            lsb_rows = torch.zeros(heads.shape, dtype=torch.int64, device=query.device)
    bias = None
    if policy.size_bias and size is not None:
        bias = torch.where(valid, size, torch.ones_like(size)).log().to(wide)[:, None, None, :]
    queries = query.shape[2]
    seen_rows = live_queries[:, None, :] & heads[:, :, None]  # [R, G, Q]
    column_sum = torch.zeros((*query.shape[:2], key.shape[1]), dtype=wide, device=query.device)
    outputs, windows = [], []
    for start in range(0, queries, QUERY_BLOCK):
        block = slice(start, start + QUERY_BLOCK)
        allowed = valid[:, None, :] & (columns[:, None, :] <= query_columns[None, block, None])
        allowed = allowed[:, None] if chosen is None else allowed[:, None] & chosen[:, :, block]
        probability = _probability(query[:, :, block], first_key, allowed, scaling, bias, policy.softmax_one)
        if lsb_rows is not None and policy.bits is not None:
            again = probability.amax(-1) < policy.bits.threshold
            lsb_rows += (again & seen_rows[:, :, block]).sum(-1)
            whole = _probability(query[:, :, block], key, allowed, scaling, bias, policy.softmax_one)
            probability = torch.where(again.unsqueeze(-1), whole, probability)
        rows = seen_rows[:, :, block, None]
        if taps.column_sum:
            column_sum += (probability * rows).sum(2)
        if taps.window and start + QUERY_BLOCK > queries - taps.window:
            windows.append((probability * rows)[:, :, max(queries - taps.window - start, 0) :])
        if policy.value_keep < 1:
            probability = probability * _largest_values(probability, allowed, policy.value_keep)
        outputs.append(torch.matmul(probability.to(value.dtype), value.unsqueeze(1)))
    output = torch.cat(outputs, dim=2) * heads[:, :, None, None]
    return Seen(
        output,
        column_sum if taps.column_sum else None,
        torch.cat(windows, dim=2) if windows else None,
        (output.abs() * seen_rows.unsqueeze(-1)).sum(dim=(2, 3), dtype=wide) if taps.head_sum else None,
        lsb_rows,
    )


def _through_kernels(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    valid: Tensor,
    columns: Tensor,
    query_columns: Tensor,
    live_queries: Tensor,
    heads: Tensor,
    scaling: float,
    taps: Taps,
) -> Seen | None:
    """`attend` of a whole prompt, or of one token over the slots that are left; None for other calls.

    key, value : float [R, 1, N, d]; the others as of `attend`.
    """
    queries, slots = query.shape[2], key.shape[2]
    allowed = valid[:, None, :] & (columns[:, None, :] <= query_columns[None, :, None])  # [R, Q, N]
    if queries == 1:
        output, probability = _decoded(query, key, value, allowed[:, 0], scaling)
        column_sum = window = probability
    else:
        whole = torch.arange(slots, device=columns.device)
        if queries != slots or not bool(((columns == whole) | ~valid).all()) or not torch.equal(query_columns, whole):
            return None
        summed = summed_attention(
            query, key, value, scaling=scaling, causal=True, live_keys=valid, live_rows=live_queries
        )
        output, column_sum = summed.output, summed.column_sum
        last = slice(max(queries - taps.window, 0), queries)
        window = probability_rows(
            query[:, :, last], key, summed.log_sum_exp[:, :, last], allowed[:, None, last], scaling
        )
    rows = (live_queries[:, None, :] & heads[:, :, None]).unsqueeze(-1)  # [R, G, Q, 1]
    output = output * heads[:, :, None, None]
    if queries == 1:
        column_sum = (column_sum * rows).sum(2)
    return Seen(
        output,
        column_sum * heads.unsqueeze(-1) if taps.column_sum else None,
        window[:, :, -taps.window :] * rows[:, :, -taps.window :] if taps.window else None,
        (output.abs() * rows).sum(dim=(2, 3), dtype=torch.float32) if taps.head_sum else None,
    )


def _decoded(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Output [R, G, 1, d] and probabilities float32 [R, G, 1, N] of one query a row over its allowed slots (bool [R, N])."""
    from topsieve_kernels.decode import decode_gathered

    ids, _ = compact(allowed)
    found = decode_gathered(
        query[:, :, 0],
        key,
        value,
        ids.clamp(min=0)[:, None],
        allowed.sum(-1, keepdim=True),
        scale=scaling,
        probabilities=True,
        backend="triton",
    )
    assert found.probability is not None
    probability = found.probability.new_zeros((*query.shape[:2], allowed.shape[1]))
    place = ids.clamp(min=0)[:, None].expand(found.probability.shape)
    # Entries beyond a row's length have probability 0 and stand at slot 0.
    probability.scatter_add_(2, place, found.probability)
    return found.output.unsqueeze(2), probability.unsqueeze(2)


def _probability(query: Tensor, key: Tensor, allowed: Tensor, scaling: float, bias: Tensor | None, one: bool) -> Tensor:
    wide = torch.promote_types(query.dtype, torch.float32)
    scores = (torch.matmul(query, key.unsqueeze(1).transpose(2, 3)) * scaling).to(wide)
    if bias is not None:
        scores = scores + bias
    # The lowest number, not minus infinity: the rows of padding have no key at all and must not become not-a-number.
    scores = scores.masked_fill(~allowed, torch.finfo(wide).min)
    return (softmax_one(scores) if one else scores.softmax(dim=-1)) * allowed


def _largest_values(probability: Tensor, allowed: Tensor, share: float) -> Tensor:
    """bool like `probability`: of the keys a query may see, the share of largest probability."""
    keys = allowed.sum(-1).expand(probability.shape[:3])
    different, place = keys.flatten().unique(return_inverse=True)
    counts = torch.tensor([kept_values(int(n), share) for n in different], device=keys.device)[place]
    flat = probability.reshape(-1, 1, 1, probability.shape[-1])
    return largest(flat, counts.clamp(max=probability.shape[-1])).reshape(probability.shape)


def _quantised(
    query: Tensor, key: Tensor, value: Tensor, valid: Tensor, live_queries: Tensor, policy: AttentionPolicy
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Operands as the integers of `policy.bits`; one scale a head and pass."""
    assert policy.bits is not None
    rows, groups, queries, width = query.shape
    flat = query.reshape(rows * groups, 1, queries, width)
    turned = quantise_operands(flat, flat, flat, live_queries.repeat_interleave(groups, 0), policy.bits).query
    stored = quantise_operands(key[:, None], key[:, None], value[:, None], valid, policy.bits)
    return turned.reshape(query.shape), stored.key[:, 0], stored.key_msb[:, 0], stored.value[:, 0]
