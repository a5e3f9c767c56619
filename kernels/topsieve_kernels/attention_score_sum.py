"""Column sums of attention from the queries, the keys and each row's log-sum-exp: the second of two passes.

    sum[b, k, n] = sum over the query heads h of key-value head k, and rows m, of exp(scale q[b,h,m].k[b,k,n] - lse[b,h,m])
    head[b, h]   = sum over rows m and channels d of |output[b, h, m, d]|, where the output of the first pass is given

Each program owns one tile of keys and walks every query tile of every head in its group, so the key tile is read once,
each sum has one owner and one fixed order of additions: no atomics, bitwise reproducible. The scores are formed keys by
queries, so that a sum over queries stays inside a thread's own registers as far as the matrix layout allows. Tiles that
no mask cuts (below the diagonal, all rows there) have a loop of their own: most of a long row's work is done there. The
magnitudes wait for memory while other programs compute: a reduction of its own would take a fifth as long as this pass.
"""

import torch

from topsieve_kernels.backend import LOG2_E, capability, ceil_div, jit, multiprocessors, next_power_of_2, rows_last, tl


@jit
def add_tiles(
    total,
    key,
    query_base,
    lse_base,
    n,
    d,
    first,
    count,
    wrap,
    after_wrap,
    query_stride_m,
    query_rows,
    offset,
    score_scale,
    HEAD_DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    EDGE: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """`total` with `count` query tiles added, from row `first` on; without EDGE every pair of a tile counts.

    With EDGE tile number `wrap` starts at row `after_wrap` instead.
    """
    for tile in range(count):
        start = first + tile * BLOCK_M
        if EDGE:
            start = tl.where(tile == wrap, after_wrap, start)
        m = start + tl.arange(0, BLOCK_M)
        here = d[:, None] < HEAD_DIM
        if EDGE:
            here = here & (m[None, :] < query_rows)
            lse = tl.load(lse_base + m, mask=m < query_rows, other=float("inf"))
        else:
            lse = tl.load(lse_base + m)
        query = tl.load(query_base + m[None, :] * query_stride_m + d[:, None], mask=here, other=0.0)
        # A row without an allowed key has minus infinity; it must add 0, not infinity.
        shift = tl.where(lse == float("-inf"), float("inf"), lse * 1.4426950408889634)
        score = tl.dot(key, query, input_precision="tf32x3") * score_scale
        weight = tl.exp2(score - shift[None, :])
        if EDGE and CAUSAL:
            weight = tl.where(n[:, None] <= m[None, :] + offset, weight, 0.0)
        total += tl.sum(weight, axis=1)
    return total


@jit
def score_sum_kernel(
    query_ptr,
    key_ptr,
    lse_ptr,
    key_valid_ptr,
    output_ptr,
    sum_ptr,
    magnitude_ptr,
    query_stride_b,
    query_stride_h,
    query_stride_m,
    key_stride_b,
    key_stride_h,
    key_stride_n,
    output_stride_b,
    output_stride_h,
    output_stride_m,
    query_rows,
    key_rows,
    output_heads,
    score_scale,
    HEADS_PER_OUTPUT: tl.constexpr,
    OUTPUTS_PER_KEY_HEAD: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    CAUSAL: tl.constexpr,
    HAS_KEY_VALID: tl.constexpr,
    HAS_OUTPUT: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    # Under a causal mask the first tiles of keys are seen by the most rows: those of all heads begin first.
    batch = (tl.program_id(0) // output_heads).to(tl.int64)
    output_head = (tl.program_id(0) % output_heads).to(tl.int64)
    tile = tl.program_id(1)
    tiles = tl.num_programs(1)
    key_head = output_head // OUTPUTS_PER_KEY_HEAD
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    key_here = n < key_rows
    key = tl.load(
        key_ptr + batch * key_stride_b + key_head * key_stride_h + n[:, None] * key_stride_n + d[None, :],
        mask=key_here[:, None] & (d[None, :] < HEAD_DIM),
        other=0.0,
    )
    offset = key_rows - query_rows
    whole = query_rows // BLOCK_M
    inner = 0
    edges = 0
    first = 0
    if CAUSAL:
        # Row m sees key n from m = n - offset on: tiles before the first key's add nothing, those from the last key's on
        # need no mask.
        first_key = tile * BLOCK_N
        first = tl.minimum(tl.maximum(first_key - offset, 0) // BLOCK_M, whole)
        inner = tl.minimum(tl.cdiv(tl.maximum(first_key + BLOCK_N - 1 - offset, 0), BLOCK_M), whole)
        edges = inner - first
    # The rest of the rows that fill no tile are one more tile with a mask.
    rest = tl.cdiv(query_rows, BLOCK_M) - whole
    total = tl.zeros([BLOCK_N], tl.float32)
    for member in range(HEADS_PER_OUTPUT):
        head = output_head * HEADS_PER_OUTPUT + member
        query_base = query_ptr + batch * query_stride_b + head * query_stride_h
        lse_base = lse_ptr + (batch * (output_heads * HEADS_PER_OUTPUT) + head) * query_rows
        total = add_tiles(
            total,
            key,
            query_base,
            lse_base,
            n,
            d,
            first * BLOCK_M,
            edges + rest,
            edges,
            whole * BLOCK_M,
            query_stride_m,
            query_rows,
            offset,
            score_scale,
            HEAD_DIM,
            CAUSAL,
            True,
            BLOCK_M,
        )
        total = add_tiles(
            total,
            key,
            query_base,
            lse_base,
            n,
            d,
            inner * BLOCK_M,
            whole - inner,
            0,
            0,
            query_stride_m,
            query_rows,
            offset,
            score_scale,
            HEAD_DIM,
            CAUSAL,
            False,
            BLOCK_M,
        )
    if HAS_KEY_VALID:
        valid = tl.load(key_valid_ptr + batch * key_rows + n, mask=key_here, other=0)
        total = tl.where(valid != 0, total, 0.0)
    tl.store(sum_ptr + (batch * output_heads + output_head) * key_rows + n, total, mask=key_here)
    if HAS_OUTPUT:
        for member in range(HEADS_PER_OUTPUT):
            head = output_head * HEADS_PER_OUTPUT + member
            magnitude = tl.zeros([BLOCK_M], tl.float32)
            for start in range(tile * BLOCK_M, query_rows, tiles * BLOCK_M):
                m = start + tl.arange(0, BLOCK_M)
                output = tl.load(
                    output_ptr
                    + batch * output_stride_b
                    + head * output_stride_h
                    + m[:, None] * output_stride_m
                    + d[None, :],
                    mask=(m[:, None] < query_rows) & (d[None, :] < HEAD_DIM),
                    other=0.0,
                )
                magnitude += tl.sum(tl.abs(output.to(tl.float32)), axis=1)
            slot = (batch * (output_heads * HEADS_PER_OUTPUT) + head) * tiles + tile
            tl.store(magnitude_ptr + slot, tl.sum(magnitude, axis=0))


def score_sum_blocks(head_dim: int, dtype: torch.dtype, capability: int, few: bool = False) -> dict[str, int]:
    """Tile sizes, warps and stages that compile without spills for sm_80 and sm_90; `few` for more and smaller programs."""
    if dtype == torch.float32:
        return {"BLOCK_M": 16, "BLOCK_N": 64, "num_warps": 4, "num_stages": 2}
    if head_dim <= 128 and capability >= 90:
        # One warpgroup a program, several programs a multiprocessor: one forms products while another exponentiates.
        return {
            "BLOCK_M": 64,
            "BLOCK_N": 64 if few else 128,
            "num_warps": 4,
            "num_stages": 3 if head_dim <= 64 or few else 2,
        }
    if head_dim <= 64:
        return {"BLOCK_M": 64, "BLOCK_N": 128, "num_warps": 8, "num_stages": 2}
    if head_dim <= 128:
        return {"BLOCK_M": 32, "BLOCK_N": 128, "num_warps": 8, "num_stages": 2}
    return {"BLOCK_M": 32, "BLOCK_N": 64, "num_warps": 4, "num_stages": 2}


def score_sum(
    query: torch.Tensor,
    key: torch.Tensor,
    log_sum_exp: torch.Tensor,
    *,
    scale: float,
    causal: bool = False,
    key_valid: torch.Tensor | None = None,
    output: torch.Tensor | None = None,
    per_query_head: bool = False,
    blocks: dict[str, int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Launch the pass.

    query : [B, Hq, M, D]; key : [B, Hk, N, D]; log_sum_exp : float32 [B, Hq, M], natural logarithm over the allowed keys,
    minus infinity for a row that has none. key_valid : bool [B, N] or None. Causal: key n is allowed for row m when
    n <= m + N - M. output : [B, Hq, M, D] or None.
    Returns the column sums, float32 [B, Hk, N], or [B, Hq, N] with `per_query_head`; and the magnitudes of the output,
    float32 [B, Hq], or None.
    """
    query, key = rows_last(query), rows_last(key)
    batch, query_heads, query_rows, head_dim = query.shape
    key_heads, key_rows = key.shape[1], key.shape[2]
    group = query_heads // key_heads
    output_heads = query_heads if per_query_head else key_heads
    total = query.new_empty((batch, output_heads, key_rows), dtype=torch.float32)
    if blocks is None:
        few = batch * output_heads * ceil_div(key_rows, 128) < 2 * multiprocessors(query)
        blocks = score_sum_blocks(head_dim, query.dtype, capability(query), few)
    tiles = ceil_div(key_rows, blocks["BLOCK_N"])
    magnitude = total if output is None else query.new_empty((batch, query_heads, tiles), dtype=torch.float32)
    summed = query if output is None else rows_last(output)
    score_sum_kernel[(batch * output_heads, tiles)](
        query,
        key,
        log_sum_exp.contiguous(),
        total if key_valid is None else key_valid.to(torch.int8).contiguous(),
        summed,
        total,
        magnitude,
        *query.stride()[:3],
        *key.stride()[:3],
        *summed.stride()[:3],
        query_rows,
        key_rows,
        output_heads,
        scale * LOG2_E,
        HEADS_PER_OUTPUT=1 if per_query_head else group,
        OUTPUTS_PER_KEY_HEAD=group if per_query_head else 1,
        HEAD_DIM=head_dim,
        CAUSAL=causal,
        HAS_KEY_VALID=key_valid is not None,
        HAS_OUTPUT=output is not None,
        BLOCK_D=max(next_power_of_2(head_dim), 16),
        **blocks,
    )
    return total, None if output is None else magnitude.sum(2)
