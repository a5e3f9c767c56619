"""The first of two passes: attention with each row's log-sum-exp, from the vendor's library or from Triton.

The vendor's forward (cuDNN, else FlashAttention-2, through torch's own operators) is the faster one and takes neither
padding nor, with causal masking, unequal lengths; the Triton forward takes both and gives the head magnitudes for free.
"""

import torch

from topsieve_kernels.backend import LOG2_E, ceil_div, jit, next_power_of_2, rows_last, tl


@jit
def forward_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    query_valid_ptr,
    key_valid_ptr,
    output_ptr,
    lse_ptr,
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
    # Under a causal mask the last tiles of rows see the most keys: those of all heads begin first.
    batch = (tl.program_id(0) // query_heads).to(tl.int64)
    head = (tl.program_id(0) % query_heads).to(tl.int64)
    tiles = tl.num_programs(1)
    tile = tiles - 1 - tl.program_id(1)
    key_head = head // group
    row = batch * query_heads + head
    m = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    query_here = (m[:, None] < query_rows) & (d[None, :] < HEAD_DIM)
    query = tl.load(
        query_ptr + batch * query_stride_b + head * query_stride_h + m[:, None] * query_stride_m + d[None, :],
        mask=query_here,
        other=0.0,
    )
    key_base = key_ptr + batch * key_stride_b + key_head * key_stride_h
    value_base = value_ptr + batch * value_stride_b + key_head * value_stride_h
    live = m < query_rows
    if HAS_QUERY_VALID:
        live = live & (tl.load(query_valid_ptr + batch * query_rows + m, mask=m < query_rows, other=0) != 0)
    largest = tl.full([BLOCK_M], float("-inf"), tl.float32)
    denominator = tl.zeros([BLOCK_M], tl.float32)
    output = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    end = key_rows
    if CAUSAL:
        end = tl.minimum(key_rows, (tile + 1) * BLOCK_M + (key_rows - query_rows))
    for start in range(0, end, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        key_here = (n[:, None] < key_rows) & (d[None, :] < HEAD_DIM)
        key = tl.load(key_base + n[:, None] * key_stride_n + d[None, :], mask=key_here, other=0.0)
        score = tl.dot(query, tl.trans(key), input_precision="tf32x3") * score_scale
        allowed = live[:, None] & (n[None, :] < key_rows)
        if CAUSAL:
            allowed = allowed & (n[None, :] <= m[:, None] + (key_rows - query_rows))
        if HAS_KEY_VALID:
            present = tl.load(key_valid_ptr + batch * key_rows + n, mask=n < key_rows, other=0)
            allowed = allowed & (present[None, :] != 0)
        score = tl.where(allowed, score, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(score, axis=1))
        # While a row has no allowed key yet, any finite reference gives weight 0 instead of NaN.
        reference = tl.where(new_largest == float("-inf"), 0.0, new_largest)
        weight = tl.exp2(score - reference[:, None])
        correction = tl.exp2(largest - reference)
        denominator = denominator * correction + tl.sum(weight, axis=1)
        value = tl.load(value_base + n[:, None] * value_stride_n + d[None, :], mask=key_here, other=0.0)
        output = output * correction[:, None] + tl.dot(weight.to(value.dtype), value, input_precision="tf32x3")
        largest = new_largest
    output = output * tl.where(denominator > 0.0, 1.0 / denominator, 0.0)[:, None]
    lse = tl.where(denominator > 0.0, (largest + tl.log2(denominator)) * 0.6931471805599453, float("-inf"))
    tl.store(
        output_ptr + (row * query_rows + m[:, None]) * HEAD_DIM + d[None, :],
        output.to(output_ptr.dtype.element_ty),
        mask=query_here,
    )
    tl.store(lse_ptr + row * query_rows + m, lse, mask=m < query_rows)
    tl.store(magnitude_ptr + row * tiles + tile, tl.sum(tl.sum(tl.abs(output), 1), 0))


def forward_blocks(head_dim: int, dtype: torch.dtype) -> dict[str, int]:
    """Tile sizes, warps and stages that compile without spills for sm_80 and sm_90."""
    if dtype == torch.float32:
        if head_dim <= 64:
            return {"BLOCK_M": 32, "BLOCK_N": 32, "num_warps": 8, "num_stages": 2}
        return {"BLOCK_M": 16, "BLOCK_N": 32, "num_warps": 4, "num_stages": 2}
    if head_dim <= 64:
        return {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 3}
    if head_dim <= 128:
        return {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2}
    return {"BLOCK_M": 64, "BLOCK_N": 32, "num_warps": 8, "num_stages": 1}


def triton_forward(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scale: float,
    causal: bool = False,
    query_valid: torch.Tensor | None = None,
    key_valid: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output [B, Hq, M, D], log-sum-exp float32 [B, Hq, M] and head sums float32 [B, Hq] (before rounding)."""
    query, key, value = rows_last(query), rows_last(key), rows_last(value)
    batch, query_heads, query_rows, head_dim = query.shape
    blocks = forward_blocks(head_dim, query.dtype)
    tiles = ceil_div(query_rows, blocks["BLOCK_M"])
    output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
    lse = query.new_empty((batch, query_heads, query_rows), dtype=torch.float32)
    magnitude = query.new_empty((batch, query_heads, tiles), dtype=torch.float32)
    forward_kernel[(batch * query_heads, tiles)](
        query,
        key,
        value,
        lse if query_valid is None else query_valid.to(torch.int8).contiguous(),
        lse if key_valid is None else key_valid.to(torch.int8).contiguous(),
        output,
        lse,
        magnitude,
        *query.stride()[:3],
        *key.stride()[:3],
        *value.stride()[:3],
        query_rows,
        key.shape[2],
        query_heads,
        query_heads // key.shape[1],
        scale * LOG2_E,
        HEAD_DIM=head_dim,
        CAUSAL=causal,
        HAS_QUERY_VALID=query_valid is not None,
        HAS_KEY_VALID=key_valid is not None,
        BLOCK_D=max(next_power_of_2(head_dim), 16),
        **blocks,
    )
    return output, lse, magnitude.sum(2)


def vendor_name(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool) -> str | None:
    """'cudnn', 'flash' or 'cpu': the vendor forward that takes these operands and returns the log-sum-exp, or None."""
    _, query_heads, query_rows, head_dim = query.shape
    if causal and query_rows != key.shape[2]:
        return None
    if not query.is_cuda:
        return "cpu" if key.shape[1] == query_heads else None
    if query.dtype not in (torch.float16, torch.bfloat16) or head_dim % 8:
        return None
    params = torch.backends.cuda.SDPAParams(query, key, value, None, 0.0, causal, key.shape[1] != query_heads)
    if torch.cuda.get_device_capability(query.device)[0] >= 9 and torch.backends.cuda.can_use_cudnn_attention(params):
        return "cudnn"
    return "flash" if torch.backends.cuda.can_use_flash_attention(params) else None


def vendor_forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scale: float, causal: bool, name: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and natural-logarithm log-sum-exp float32 [B, Hq, M] from torch's own operator of that name."""
    aten = torch.ops.aten
    if name == "cudnn":
        output, lse = aten._scaled_dot_product_cudnn_attention(query, key, value, None, True, 0.0, causal, scale=scale)[
            :2
        ]
    elif name == "flash":
        output, lse = aten._scaled_dot_product_flash_attention(query, key, value, 0.0, causal, scale=scale)[:2]
    else:
        output, lse = aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal, scale=scale)
    return output, lse.reshape(query.shape[:3]).float()
