"""Attention, its column sums and its head magnitudes in one pass, for rows of at most 256 keys.

A program holds one tile of query rows against every key, so each row's denominator is known before its scores are
forgotten and nothing is computed twice. Every program stores its own partial sums; one small reduction in a fixed order
adds them: no atomics, bitwise reproducible. Beyond 256 keys the scores no longer fit in registers.
"""

import torch

from topsieve_kernels.backend import LOG2_E, capability, ceil_div, jit, next_power_of_2, rows_last, tl

MAXIMUM_KEYS = 256
MAXIMUM_FLOAT32_ELEMENTS = 128 * 64


@jit
def one_pass_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    query_valid_ptr,
    key_valid_ptr,
    output_ptr,
    lse_ptr,
    column_ptr,
    magnitude_ptr,
    query_stride_b,
    query_stride_h,
    query_stride_m,
    key_stride_b,
    key_stride_h,
    key_stride_n,
    value_stride_b,
    value_stride_h,
    value_stride_n,
    query_rows,
    key_rows,
    query_heads,
    group,
    score_scale,
    HEAD_DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_QUERY_VALID: tl.constexpr,
    HAS_KEY_VALID: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    batch = (tl.program_id(1) // query_heads).to(tl.int64)
    head = tl.program_id(1) % query_heads
    key_head = head // group
    row = batch * query_heads + head
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    query_here = (m[:, None] < query_rows) & (d[None, :] < HEAD_DIM)
    key_here = (n[:, None] < key_rows) & (d[None, :] < HEAD_DIM)
    query = tl.load(
        query_ptr + batch * query_stride_b + head * query_stride_h + m[:, None] * query_stride_m + d[None, :],
        mask=query_here,
        other=0.0,
    )
    key = tl.load(
        key_ptr + batch * key_stride_b + key_head * key_stride_h + n[:, None] * key_stride_n + d[None, :],
        mask=key_here,
        other=0.0,
    )
    score = tl.dot(query, tl.trans(key), input_precision="tf32x3") * score_scale
    allowed = (m[:, None] < query_rows) & (n[None, :] < key_rows)
    if CAUSAL:
        allowed = allowed & (n[None, :] <= m[:, None] + (key_rows - query_rows))
    if HAS_QUERY_VALID:
        live = tl.load(query_valid_ptr + batch * query_rows + m, mask=m < query_rows, other=0)
        allowed = allowed & (live[:, None] != 0)
    if HAS_KEY_VALID:
        present = tl.load(key_valid_ptr + batch * key_rows + n, mask=n < key_rows, other=0)
        allowed = allowed & (present[None, :] != 0)
    score = tl.where(allowed, score, float("-inf"))
    largest = tl.max(score, axis=1)
    largest = tl.where(largest == float("-inf"), 0.0, largest)
    weight = tl.exp2(score - largest[:, None])
    denominator = tl.sum(weight, axis=1)
    weight = weight * tl.where(denominator > 0.0, 1.0 / denominator, 0.0)[:, None]
    value = tl.load(
        value_ptr + batch * value_stride_b + key_head * value_stride_h + n[:, None] * value_stride_n + d[None, :],
        mask=key_here,
        other=0.0,
    )
    output = tl.dot(weight.to(value.dtype), value, input_precision="tf32x3")
    tl.store(
        output_ptr + (row * query_rows + m[:, None]) * HEAD_DIM + d[None, :],
        output.to(output_ptr.dtype.element_ty),
        mask=query_here,
    )
    lse = tl.where(denominator > 0.0, (largest + tl.log2(denominator)) * 0.6931471805599453, float("-inf"))
    tl.store(lse_ptr + row * query_rows + m, lse, mask=m < query_rows)
    tile = row * tl.num_programs(0) + tl.program_id(0)
    tl.store(column_ptr + tile * key_rows + n, tl.sum(weight, axis=0), mask=n < key_rows)
    tl.store(magnitude_ptr + tile, tl.sum(tl.sum(tl.abs(output), axis=1), axis=0))


def fits_one_pass(key_rows: int, head_dim: int, dtype: torch.dtype) -> bool:
    """Whether every key of a row fits on chip without spills: `MAXIMUM_KEYS`, fewer for float32."""
    if dtype == torch.float32:
        return next_power_of_2(key_rows) * next_power_of_2(head_dim) <= MAXIMUM_FLOAT32_ELEMENTS
    return key_rows <= MAXIMUM_KEYS


def one_pass_blocks(key_rows: int, head_dim: int, dtype: torch.dtype, capability: int) -> dict[str, int]:
    """Tile sizes, warps and stages that compile without spills for sm_80 and sm_90."""
    block_n = max(next_power_of_2(key_rows), 16)
    if dtype == torch.float32 or head_dim > 128:
        block_m, warps = 16, 8
    elif block_n <= 128:
        block_m, warps = 64, 4 if head_dim <= 64 else 8
    else:
        # Hopper's warpgroup instruction wants 64 rows; elsewhere 32 leave registers free.
        block_m, warps = 64 if head_dim <= 64 and capability >= 90 else 32, 8
    return {"BLOCK_M": block_m, "BLOCK_N": block_n, "num_warps": warps, "num_stages": 1}


def one_pass(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scale: float,
    causal: bool = False,
    query_valid: torch.Tensor | None = None,
    key_valid: torch.Tensor | None = None,
    per_query_head: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Launch the pass: shapes as in `attention_importance`, such that `fits_one_pass`.

    Returns output [B, Hq, M, D], log-sum-exp float32 [B, Hq, M], token sums float32 [B, Hk or Hq, N] and head sums
    float32 [B, Hq], the last taken before the output is rounded to its dtype.
    """
    query, key, value = rows_last(query), rows_last(key), rows_last(value)
    batch, query_heads, query_rows, head_dim = query.shape
    key_heads, key_rows = key.shape[1], key.shape[2]
    blocks = one_pass_blocks(key_rows, head_dim, query.dtype, capability(query))
    tiles = ceil_div(query_rows, blocks["BLOCK_M"])
    output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    lse = query.new_empty((batch, query_heads, query_rows), dtype=torch.float32)
    column = query.new_empty((batch, query_heads, tiles, key_rows), dtype=torch.float32)
    magnitude = query.new_empty((batch, query_heads, tiles), dtype=torch.float32)
    one_pass_kernel[(tiles, batch * query_heads)](
        query,
        key,
        value,
        lse if query_valid is None else query_valid.to(torch.int8).contiguous(),
        lse if key_valid is None else key_valid.to(torch.int8).contiguous(),
        output,
        lse,
        column,
        magnitude,
        *query.stride()[:3],
        *key.stride()[:3],
        *value.stride()[:3],
        query_rows,
        key_rows,
        query_heads,
        query_heads // key_heads,
        scale * LOG2_E,
        HEAD_DIM=head_dim,
        CAUSAL=causal,
        HAS_QUERY_VALID=query_valid is not None,
        HAS_KEY_VALID=key_valid is not None,
        BLOCK_D=max(next_power_of_2(head_dim), 16),
        **blocks,
    )
    if per_query_head:
        token = column.sum(2)
    else:
        token = column.view(batch, key_heads, -1, key_rows).sum(2)
    return output, lse, token, magnitude.sum(2)
