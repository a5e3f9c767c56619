"""(a) Attention that also says how much every token and every head mattered.

With P the attention probabilities (0 where a key is not allowed) and O = P V:

    token[b, k, n] = sum over the query heads h of key-value head k, and rows m, of P[b, h, m, n]      (a sum, never a mean)
    head[b, h]     = sum over rows m and channels d of |O[b, h, m, d]|

which are SpAtten's cumulative importance scores (specification `accelerator`, section 1; to be added up over layers in
float32). A key n is allowed for row m when both are valid and, if causal, n <= m + N - M (aligned bottom right). A row
without an allowed key gives output 0, log-sum-exp minus infinity and adds nothing.

Short rows (N <= 256 and, both rounded up to powers of two, N D <= 32768; 8192 in float32) take one pass; longer rows take a forward that keeps the log-sum-exp and a second pass down the
columns (`attention_score_sum`). Why two: the weight of a row is one over its denominator, known only after its last key;
a program that has let go of its scores must form them again.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from topsieve_kernels.attention_forward import triton_forward, vendor_forward, vendor_name
from topsieve_kernels.attention_one_pass import fits_one_pass, one_pass
from topsieve_kernels.attention_score_sum import score_sum
from topsieve_kernels.backend import MAXIMUM_HEAD_DIM, Backend, choose, require

Passes = Literal["auto", "one", "two", "two_vendor", "two_triton"]
REFERENCE_ROWS = 1024


@dataclass(frozen=True)
class AttentionImportance:
    """output [B, Hq, M, D] in the query's dtype; float32: log_sum_exp [B, Hq, M] (natural logarithm), token_sum
    [B, Hk, N] ([B, Hq, N] per query head), head_sum [B, Hq]."""

    output: torch.Tensor
    log_sum_exp: torch.Tensor
    token_sum: torch.Tensor
    head_sum: torch.Tensor


def attention_importance(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    query_valid: torch.Tensor | None = None,
    key_valid: torch.Tensor | None = None,
    per_query_head: bool = False,
    passes: Passes = "auto",
    backend: Backend = "auto",
) -> AttentionImportance:
    """Attention with token and head importance.

    Parameters
    ----------
    query : [B, Hq, M, D]; key, value : [B, Hk, N, D], Hq a multiple of Hk, one floating dtype, D at most 256.
    scale : positive factor of the scores, 1/sqrt(D) when None.
    query_valid, key_valid : bool [B, M] and [B, N], or None for all valid (padding on either side, pruned tokens).
    passes : 'auto', or one variant by name (for comparison).

    Raises
    ------
    ValueError
        shapes do not fit, the dtype is not floating, the scale is not positive, or a variant cannot take these operands.
    """
    _check(query, key, value, query_valid, key_valid)
    require(
        passes in ("auto", "one", "two", "two_vendor", "two_triton"),
        "passes",
        passes,
        "auto, one, two, two_vendor, two_triton",
    )
    scale = 1.0 / math.sqrt(query.shape[3]) if scale is None else scale
    require(0 < scale < math.inf, "scale", scale, "a positive number")
    masks = {"query_valid": query_valid, "key_valid": key_valid}
    if choose(backend, query, key, value, head_dim=query.shape[3]) == "torch":
        return attention_importance_reference(
            query, key, value, causal=causal, scale=scale, per_query_head=per_query_head, **masks
        )
    fits = fits_one_pass(key.shape[2], query.shape[3], query.dtype)
    if passes == "one" or (passes == "auto" and fits):
        require(fits, "passes", passes, f"'two' for {key.shape[2]} keys of {query.shape[3]} channels in {query.dtype}")
        return AttentionImportance(
            *one_pass(query, key, value, scale=scale, causal=causal, per_query_head=per_query_head, **masks)
        )
    vendor = None
    if passes != "two_triton" and query_valid is None and key_valid is None:
        vendor = vendor_name(query, key, value, causal)
    if passes == "two_vendor":
        require(vendor is not None, "passes", passes, "no padding, and equal lengths when causal, for a vendor forward")
    rest = {"scale": scale, "causal": causal, "key_valid": key_valid, "per_query_head": per_query_head}
    if vendor is None:
        output, lse, head = triton_forward(query, key, value, scale=scale, causal=causal, **masks)
        token, _ = score_sum(query, key, lse, **rest)
    else:
        output, lse = vendor_forward(query, key, value, scale=scale, causal=causal, name=vendor)
        token, head = score_sum(query, key, lse, output=output, **rest)
    return AttentionImportance(output, lse, token, head)


def attention_importance_reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    causal: bool = False,
    scale: float | None = None,
    query_valid: torch.Tensor | None = None,
    key_valid: torch.Tensor | None = None,
    per_query_head: bool = False,
) -> AttentionImportance:
    """The definition in plain torch, float32 inside (float64 for float64 operands), 1024 rows of scores at a time."""
    batch, query_heads, query_rows, head_dim = query.shape
    key_heads, key_rows = key.shape[1], key.shape[2]
    group = query_heads // key_heads
    scale = 1.0 / math.sqrt(head_dim) if scale is None else scale
    inner = torch.float64 if query.dtype == torch.float64 else torch.float32
    key_all, value_all = (x.to(inner).repeat_interleave(group, 1) for x in (key, value))
    output = torch.empty(query.shape, dtype=inner, device=query.device)
    lse = torch.empty(query.shape[:3], dtype=inner, device=query.device)
    token = torch.zeros((batch, query_heads, key_rows), dtype=inner, device=query.device)
    n = torch.arange(key_rows, device=query.device)
    for start in range(0, query_rows, REFERENCE_ROWS):
        rows = slice(start, min(start + REFERENCE_ROWS, query_rows))
        m = torch.arange(rows.start, rows.stop, device=query.device)
        allowed = torch.ones((batch, 1, m.numel(), key_rows), dtype=torch.bool, device=query.device)
        if causal:
            allowed = allowed & (n <= m[:, None] + (key_rows - query_rows))
        if query_valid is not None:
            allowed = allowed & query_valid[:, None, rows, None].bool()
        if key_valid is not None:
            allowed = allowed & key_valid[:, None, None, :].bool()
        score = query[:, :, rows].to(inner) @ key_all.transpose(2, 3) * scale
        score = score.masked_fill(~allowed, -math.inf)
        lse[:, :, rows] = score.logsumexp(-1)
        probability = (score - lse[:, :, rows, None]).exp().masked_fill(~allowed, 0.0)
        output[:, :, rows] = probability @ value_all
        token += probability.sum(2)
    head = output.abs().sum((2, 3))
    if not per_query_head:
        token = token.view(batch, key_heads, group, key_rows).sum(2)
    if inner == torch.float64:
        return AttentionImportance(output, lse, token, head)
    return AttentionImportance(output.to(query.dtype), lse, token, head)


def _check(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_valid: torch.Tensor | None,
    key_valid: torch.Tensor | None,
) -> None:
    require(
        query.ndim == 4 and query.is_floating_point(),
        "query",
        (tuple(query.shape), query.dtype),
        "floating [B, Hq, M, D]",
    )
    batch, query_heads, query_rows, head_dim = query.shape
    require(
        key.ndim == 4
        and key.shape[0] == batch
        and key.shape[3] == head_dim
        and query_heads % max(key.shape[1], 1) == 0,
        "key",
        tuple(key.shape),
        f"[{batch}, a divisor of {query_heads}, N, {head_dim}]",
    )
    require(value.shape == key.shape, "value", tuple(value.shape), f"the key's shape {tuple(key.shape)}")
    require(
        query.dtype == key.dtype == value.dtype, "dtype", (query.dtype, key.dtype, value.dtype), "one for all three"
    )
    require(0 < head_dim <= MAXIMUM_HEAD_DIM, "head_dim", head_dim, f"1 to {MAXIMUM_HEAD_DIM}")
    require(
        min(query.shape) > 0 and min(key.shape) > 0, "shape", (tuple(query.shape), tuple(key.shape)), "no empty axis"
    )
    for name, mask, size in (("query_valid", query_valid, query_rows), ("key_valid", key_valid, key.shape[2])):
        if mask is not None:
            require(tuple(mask.shape) == (batch, size), name, tuple(mask.shape), f"({batch}, {size})")
