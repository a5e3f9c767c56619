"""Attention, its column sums and its head magnitudes in one pass, for rows of at most 256 keys.

A program holds one key-value head on chip and walks tiles of its queries, each against every key: a row's denominator is
known before its scores are forgotten, nothing is computed twice, and the sums stay with the program until it ends. Where
key-value heads are too few to fill a machine, several programs share one's tiles and a small reduction in a fixed order
adds what they stored. No atomics, bitwise reproducible. Beyond 256 keys the scores no longer fit in registers.
"""

import torch

from topsieve_kernels.backend import LOG2_E, capability, ceil_div, jit, multiprocessors, next_power_of_2, rows_last, tl

MAXIMUM_KEYS = 256
MAXIMUM_ELEMENTS = 256 * 128
MAXIMUM_FLOAT32_ELEMENTS = 128 * 64
LONG_WALK_TILES = 8


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
    column_heads,
    score_scale,
    HEADS_PER_COLUMN: tl.constexpr,
    COLUMNS_PER_KEY_HEAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    MASK_KEYS: tl.constexpr,
    HAS_QUERY_VALID: tl.constexpr,
    HAS_KEY_VALID: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    batch = (tl.program_id(1) // column_heads).to(tl.int64)
    column_head = (tl.program_id(1) % column_heads).to(tl.int64)
    key_head = column_head // COLUMNS_PER_KEY_HEAD
    share = tl.program_id(0)
    shares = tl.num_programs(0)
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    present = n < key_rows
    key_here = present[:, None] & (d[None, :] < HEAD_DIM)
    key = tl.load(
        key_ptr + batch * key_stride_b + key_head * key_stride_h + n[:, None] * key_stride_n + d[None, :],
        mask=key_here,
        other=0.0,
    )
    value = tl.load(
        value_ptr + batch * value_stride_b + key_head * value_stride_h + n[:, None] * value_stride_n + d[None, :],
        mask=key_here,
        other=0.0,
    )
    if HAS_KEY_VALID:
        present = present & (tl.load(key_valid_ptr + batch * key_rows + n, mask=present, other=0) != 0)
    place = n
    if MASK_KEYS:
        place = tl.where(present, n, 2147483647)
    # Matrix results lie in threads as rows r and r + 8 of 16: adding those needs no exchange between threads.
    column = tl.zeros([BLOCK_M // 16, 8, BLOCK_N], tl.float32)
    for member in range(HEADS_PER_COLUMN):
        head = column_head * HEADS_PER_COLUMN + member
        row = batch * (column_heads * HEADS_PER_COLUMN) + head
        query_base = query_ptr + batch * query_stride_b + head * query_stride_h
        magnitude = tl.zeros([BLOCK_M // 16, 8, 4], tl.float32)
        for start in range(share * BLOCK_M, query_rows, shares * BLOCK_M):
            m = start + tl.arange(0, BLOCK_M)
            query_here = (m[:, None] < query_rows) & (d[None, :] < HEAD_DIM)
            query = tl.load(query_base + m[:, None] * query_stride_m + d[None, :], mask=query_here, other=0.0)
            score = tl.dot(query, tl.trans(key), input_precision="tf32x3")
            if CAUSAL:
                # A key that is not there stands too far right for every row.
                score = tl.where(place[None, :] <= m[:, None] + (key_rows - query_rows), score, float("-inf"))
            elif MASK_KEYS:
                score = tl.where(present[None, :], score, float("-inf"))
            largest = tl.max(score, axis=1)
            if MASK_KEYS or CAUSAL:
                largest = tl.where(largest == float("-inf"), 0.0, largest)
            reference = largest * score_scale
            weight = tl.exp2(score * score_scale - reference[:, None])
            denominator = tl.sum(weight, axis=1)
            live = m < query_rows
            if HAS_QUERY_VALID:
                live = live & (tl.load(query_valid_ptr + batch * query_rows + m, mask=live, other=0) != 0)
            live = live & (denominator > 0.0)
            # A row that is none gets weight 0 everywhere: nothing else needs a mask for it.
            inverse = tl.where(live, 1.0 / denominator, 0.0)[:, None]
            output = tl.dot(weight.to(value.dtype), value, input_precision="tf32x3") * inverse
            column += tl.sum(tl.reshape(weight * inverse, [BLOCK_M // 16, 2, 8, BLOCK_N]), axis=1)
            parts = tl.reshape(tl.abs(output), [BLOCK_M // 16, 2, 8, BLOCK_D // 8, 4, 2])
            magnitude += tl.sum(tl.sum(tl.sum(parts, axis=5), axis=3), axis=1)
            tl.store(
                output_ptr + (row * query_rows + m[:, None]) * HEAD_DIM + d[None, :],
                output.to(output_ptr.dtype.element_ty),
                mask=query_here,
            )
            lse = tl.where(live, (reference + tl.log2(denominator)) * 0.6931471805599453, float("-inf"))
            tl.store(lse_ptr + row * query_rows + m, lse, mask=m < query_rows)
        tl.store(magnitude_ptr + row * shares + share, tl.sum(tl.sum(tl.sum(magnitude, axis=2), axis=1), axis=0))
    column_row = (batch * column_heads + column_head) * shares + share
    tl.store(column_ptr + column_row * key_rows + n, tl.sum(tl.sum(column, axis=0), axis=0), mask=n < key_rows)


def fits_one_pass(key_rows: int, head_dim: int, dtype: torch.dtype) -> bool:
    """Whether a key-value head fits on chip and its scores in registers: `MAXIMUM_KEYS`, fewer where rows are wide."""
    elements = MAXIMUM_FLOAT32_ELEMENTS if dtype == torch.float32 else MAXIMUM_ELEMENTS
    return key_rows <= MAXIMUM_KEYS and next_power_of_2(key_rows) * next_power_of_2(head_dim) <= elements


def one_pass_blocks(key_rows: int, head_dim: int, dtype: torch.dtype, capability: int) -> dict[str, int]:
    """Tile sizes, warps and stages that compile without spills for sm_80 and sm_90."""
    block_n = max(next_power_of_2(key_rows), 16)
    if dtype == torch.float32 or head_dim > 128:
        block_m, warps = 16, 8
    elif capability >= 90 and block_n * next_power_of_2(head_dim) <= 128 * 64:
        # Hopper's warpgroup instruction wants 64 rows; their scores and outputs must fit a thread's registers.
        block_m, warps = 64, 4
    else:
        block_m, warps = 32, 4 if block_n * next_power_of_2(head_dim) <= 256 * 64 else 8
    return {"BLOCK_M": block_m, "BLOCK_N": block_n, "num_warps": warps, "num_stages": 2}


def one_pass_shares(programs: int, heads: int, tiles: int, multiprocessors: int) -> int:
    """Programs that share the `tiles` of each of `heads` query heads, where there are `programs` key-value heads.

    More than one only for walks so long that they outweigh the launches of the reduction they then need.
    """
    if heads * tiles < LONG_WALK_TILES:
        return 1
    return max(1, min(tiles, multiprocessors // programs))


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
    group = query_heads // key_heads
    column_heads, heads_per_column = (query_heads, 1) if per_query_head else (key_heads, group)
    shares = one_pass_shares(batch * column_heads, heads_per_column, tiles, multiprocessors(query))
    output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    lse = query.new_empty((batch, query_heads, query_rows), dtype=torch.float32)
    column = query.new_empty((batch, column_heads, shares, key_rows), dtype=torch.float32)
    magnitude = query.new_empty((batch, query_heads, shares), dtype=torch.float32)
    one_pass_kernel[(shares, batch * column_heads)](
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
        column_heads,
        scale * LOG2_E,
        HEADS_PER_COLUMN=heads_per_column,
        COLUMNS_PER_KEY_HEAD=group // heads_per_column,
        HEAD_DIM=head_dim,
        CAUSAL=causal,
        MASK_KEYS=key_valid is not None or key_rows != blocks["BLOCK_N"],
        HAS_QUERY_VALID=query_valid is not None,
        HAS_KEY_VALID=key_valid is not None,
        BLOCK_D=max(next_power_of_2(head_dim), 16),
        **blocks,
    )
    if shares == 1:
        return output, lse, column[:, :, 0], magnitude[:, :, 0]
    return output, lse, column.sum(2), magnitude.sum(2)
