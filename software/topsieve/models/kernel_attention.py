"""Attention of live tokens through `topsieve_kernels`, with the signals that can be had from its sums.

Sums over columns come from the kernel. A row's probabilities, and the diagonal, are exp(score - log-sum-exp) of a few
products, so that no tensor of queries x keys exists.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.kernel_choice import uses_kernels
from topsieve.reduction.roles import AttentionPolicy


@dataclass(frozen=True)
class Summed:
    """`output` float [B, H, N, d]; float32: `log_sum_exp` [B, H, N], `column_sum` [B, H, M] over the live rows."""

    output: Tensor
    log_sum_exp: Tensor
    column_sum: Tensor


def takes(query: Tensor, key: Tensor, value: Tensor, policy: AttentionPolicy) -> bool:
    """Whether the kernels do this attention: plain softmax of operands as they are, every value, heads not too wide."""
    plain = policy.bits is None and policy.value_keep >= 1 and not policy.size_bias and not policy.softmax_one
    same = query.dtype == key.dtype == value.dtype and value.shape[-1] == query.shape[-1]
    if not (plain and same and min(query.shape) > 0 and min(key.shape) > 0 and uses_kernels(query, key, value)):
        return False
    # Not before a kernel is wanted: the import of Triton takes up to a second.
    from topsieve_kernels.backend import MAXIMUM_FLOAT32_HEAD_DIM, MAXIMUM_HEAD_DIM

    return query.shape[-1] <= (MAXIMUM_FLOAT32_HEAD_DIM if query.dtype == torch.float32 else MAXIMUM_HEAD_DIM)


def summed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float,
    causal: bool,
    live_keys: Tensor,
    live_rows: Tensor,
) -> Summed:
    """Every row attends to the live keys; only live rows are summed.

    Parameters
    ----------
    query : float [B, H, N, d]; key, value : float [B, KV, M, d] with KV a divisor of H.
    scaling : factor of the scores, positive.
    causal : row n sees the keys up to n + M - N.
    live_keys : bool [B, M]; live_rows : bool [B, N].
    """
    from topsieve_kernels.attention_score_sum import score_sum
    from topsieve_kernels.importance import attention_importance

    # Without a mask the vendor's own forward can be used.
    key_valid = None if bool(live_keys.all()) else live_keys
    found = attention_importance(
        query, key, value, causal=causal, scale=scaling, key_valid=key_valid, per_query_head=True, backend="triton"
    )
    column_sum = found.token_sum
    if not bool(live_rows.all()):
        lse = found.log_sum_exp.masked_fill(~live_rows[:, None, :], float("-inf"))
        column_sum, _ = score_sum(
            query, key, lse, scale=scaling, causal=causal, key_valid=key_valid, per_query_head=True
        )
    return Summed(found.output, found.log_sum_exp, column_sum)


def probability_rows(query: Tensor, key: Tensor, log_sum_exp: Tensor, allowed: Tensor, scaling: float) -> Tensor:
    """float32 [B, H, R, M]: probabilities of a few rows.

    Parameters
    ----------
    query : float [B, H, R, d]; key : float [B, H, M, d]; log_sum_exp : float32 [B, H, R].
    allowed : bool, broadcastable to [B, H, R, M].
    """
    scores = torch.matmul(query.float(), key.float().transpose(2, 3)) * scaling
    return (scores - log_sum_exp.unsqueeze(-1)).exp().masked_fill(~allowed, 0)


def diagonal(query: Tensor, key: Tensor, log_sum_exp: Tensor, scaling: float) -> Tensor:
    """float32 [B, H, N]: what each token gives itself; query, key : float [B, H, N, d]."""
    return ((query.float() * key.float()).sum(-1) * scaling - log_sum_exp).exp()
