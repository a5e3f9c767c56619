"""(b) One decoding step over a pruned key-value cache: attention over listed rows only, probabilities out on request.

    s[b, h, t] = scale q[b, h] . K[b, k, index[b, k, t]]   for t < length[b, k], k the key-value head of h
    P = softmax(s) over t,   output = sum over t of P[t] V[index[t]]

Every (batch, key-value head) is split over several programs; one holds all query heads of the group in one matrix tile,
so each listed row is read once for the whole group. The probabilities cost 4 bytes per query head and row: the importance
of the step is their sum. A length of 0 gives output 0 and log-sum-exp minus infinity.
"""

import math
from dataclasses import dataclass

import torch

from topsieve_kernels.backend import (
    LOG2_E,
    MAXIMUM_HEAD_DIM,
    Backend,
    ceil_div,
    choose,
    jit,
    next_power_of_2,
    require,
    rows_last,
    tl,
)
from topsieve_kernels.gather import check_rows, gather_rows_reference
from topsieve_kernels.split_combine import combine, split_count


@dataclass(frozen=True)
class DecodeResult:
    """output [B, Hq, D] in the query's dtype; float32: log_sum_exp [B, Hq], probability [B, Hq, T] (0 beyond the length)
    or None."""

    output: torch.Tensor
    log_sum_exp: torch.Tensor
    probability: torch.Tensor | None


@jit
def decode_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    index_ptr,
    length_ptr,
    score_ptr,
    part_output_ptr,
    part_largest_ptr,
    part_sum_ptr,
    key_stride_b,
    key_stride_h,
    key_stride_n,
    value_stride_b,
    value_stride_h,
    value_stride_n,
    index_stride_b,
    index_stride_h,
    columns,
    columns_per_part,
    key_heads,
    group,
    score_scale,
    HEAD_DIM: tl.constexpr,
    WRITE_SCORE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    part = tl.program_id(0)
    parts = tl.num_programs(0)
    batch = (tl.program_id(1) // key_heads).to(tl.int64)
    key_head = (tl.program_id(1) % key_heads).to(tl.int64)
    g = tl.arange(0, BLOCK_G)
    d = tl.arange(0, BLOCK_D)
    row = (batch * key_heads + key_head) * group + g
    query = tl.load(
        query_ptr + row[:, None] * HEAD_DIM + d[None, :],
        mask=(g[:, None] < group) & (d[None, :] < HEAD_DIM),
        other=0.0,
    )
    length = tl.load(length_ptr + tl.program_id(1))
    index_base = index_ptr + batch * index_stride_b + key_head * index_stride_h
    key_base = key_ptr + batch * key_stride_b + key_head * key_stride_h
    value_base = value_ptr + batch * value_stride_b + key_head * value_stride_h
    largest = tl.full([BLOCK_G], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_G], tl.float32)
    output = tl.zeros([BLOCK_G, BLOCK_D], tl.float32)
    first = part * columns_per_part
    last = tl.minimum(first + columns_per_part, columns)
    for start in range(first, last, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        live = (t < last) & (t < length)
        index = tl.load(index_base + t, mask=live, other=0).to(tl.int64)
        here = live[:, None] & (d[None, :] < HEAD_DIM)
        key = tl.load(key_base + index[:, None] * key_stride_n + d[None, :], mask=here, other=0.0)
        value = tl.load(value_base + index[:, None] * value_stride_n + d[None, :], mask=here, other=0.0)
        score = tl.dot(query, tl.trans(key), input_precision="tf32x3") * score_scale
        score = tl.where(live[None, :], score, float("-inf"))
        if WRITE_SCORE:
            tl.store(
                score_ptr + row[:, None] * columns + t[None, :],
                score,
                mask=(g[:, None] < group) & (t[None, :] < last),
            )
        new_largest = tl.maximum(largest, tl.max(score, axis=1))
        reference = tl.where(new_largest == float("-inf"), 0.0, new_largest)
        weight = tl.exp2(score - reference[:, None])
        correction = tl.exp2(largest - reference)
        total = total * correction + tl.sum(weight, axis=1)
        output = output * correction[:, None] + tl.dot(weight.to(value.dtype), value, input_precision="tf32x3")
        largest = new_largest
    slot = row * parts + part
    tl.store(part_largest_ptr + slot, largest, mask=g < group)
    tl.store(part_sum_ptr + slot, total, mask=g < group)
    tl.store(
        part_output_ptr + slot[:, None] * HEAD_DIM + d[None, :],
        output,
        mask=(g[:, None] < group) & (d[None, :] < HEAD_DIM),
    )


def decode_blocks(head_dim: int, dtype: torch.dtype) -> dict[str, int]:
    """Tile size, warps and stages that compile without spills for sm_80 and sm_90."""
    # The indices of a tile come two turns before its rows, which have two buffers: five stages.
    wide = dtype == torch.float32 or head_dim > 128
    return {"BLOCK_T": 32 if wide else 64, "num_warps": 4, "num_stages": 5}


def decode_gathered(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    index: torch.Tensor,
    length: torch.Tensor | None = None,
    *,
    scale: float | None = None,
    probabilities: bool = False,
    backend: Backend = "auto",
) -> DecodeResult:
    """Attention of one query per head over the listed rows of a cache.

    Parameters
    ----------
    query : [B, Hq, D]; key, value : [B, Hk, N, D], Hq a multiple of Hk, D at most 256, one floating dtype.
    index : integer [B, Hk, T], rows to attend to, each at most once per list; entries beyond the length are ignored.
    length : integer [B, Hk], None for all T. scale : factor of the scores, 1/sqrt(D) when None.

    Raises
    ------
    ValueError
        shapes do not fit, or (CPU operands only) an index is out of range or listed twice.
    """
    index, length = _check(query, key, value, index, length)
    scale = 1.0 / math.sqrt(query.shape[2]) if scale is None else scale
    if choose(backend, query, key, value, index, head_dim=query.shape[2]) == "torch":
        return decode_gathered_reference(query, key, value, index, length, scale=scale, probabilities=probabilities)
    query, key, value = query.contiguous(), rows_last(key), rows_last(value)
    batch, query_heads, head_dim = query.shape
    key_heads, columns = index.shape[1], index.shape[2]
    group = query_heads // key_heads
    blocks = decode_blocks(head_dim, query.dtype)
    parts = split_count(batch * key_heads, columns, blocks["BLOCK_T"], query)
    columns_per_part = max(ceil_div(ceil_div(columns, parts), blocks["BLOCK_T"]), 1) * blocks["BLOCK_T"]
    parts = max(ceil_div(columns, columns_per_part), 1)
    if length is None:
        length = torch.full((batch, key_heads), columns, dtype=torch.int32, device=query.device)
    part_output = query.new_empty((batch, query_heads, parts, head_dim), dtype=torch.float32)
    part_largest = query.new_empty((batch, query_heads, parts), dtype=torch.float32)
    part_sum = torch.empty_like(part_largest)
    score = query.new_empty((batch, query_heads, columns), dtype=torch.float32) if probabilities else None
    decode_kernel[(parts, batch * key_heads)](
        query,
        key,
        value,
        index,
        length,
        part_sum if score is None else score,
        part_output,
        part_largest,
        part_sum,
        *key.stride()[:3],
        *value.stride()[:3],
        index.stride(0),
        index.stride(1),
        columns,
        columns_per_part,
        key_heads,
        group,
        scale * LOG2_E,
        HEAD_DIM=head_dim,
        WRITE_SCORE=probabilities,
        BLOCK_D=max(next_power_of_2(head_dim), 16),
        BLOCK_G=max(next_power_of_2(group), 16),
        **blocks,
    )
    output, lse = combine(part_output, part_largest, part_sum, query.dtype, score)
    return DecodeResult(output, lse, score)


def decode_gathered_reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    index: torch.Tensor,
    length: torch.Tensor | None = None,
    *,
    scale: float | None = None,
    probabilities: bool = False,
) -> DecodeResult:
    """The definition: gather, then softmax, float32 inside (float64 for float64 operands)."""
    index, length = _check(query, key, value, index, length)
    batch, query_heads, head_dim = query.shape
    key_heads = key.shape[1]
    scale = 1.0 / math.sqrt(head_dim) if scale is None else scale
    inner = torch.float64 if query.dtype == torch.float64 else torch.float32
    rows, values = (gather_rows_reference(x, index, length).to(inner) for x in (key, value))
    score = query.to(inner).view(batch, key_heads, -1, head_dim) @ rows.transpose(2, 3) * scale
    if length is not None:
        beyond = torch.arange(index.shape[2], device=index.device) >= length[..., None, None]
        score = score.masked_fill(beyond, -math.inf)
    lse = score.logsumexp(-1, keepdim=True)
    probability = (score - lse).exp().masked_fill(score == -math.inf, 0.0)
    output = (probability @ values).view(batch, query_heads, head_dim)
    return DecodeResult(
        output.to(query.dtype),
        lse.view(batch, query_heads),
        probability.reshape(batch, query_heads, -1) if probabilities else None,
    )


def _check(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, index: torch.Tensor, length: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    require(
        query.ndim == 3 and query.is_floating_point(), "query", (tuple(query.shape), query.dtype), "floating [B, Hq, D]"
    )
    batch, query_heads, head_dim = query.shape
    require(0 < head_dim <= MAXIMUM_HEAD_DIM, "head_dim", head_dim, f"1 to {MAXIMUM_HEAD_DIM}")
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
    index, length = check_rows(key, index, length)
    if not index.is_cuda and index.shape[2] > 1:
        beyond = torch.zeros_like(index, dtype=torch.bool)
        if length is not None:
            beyond = torch.arange(index.shape[2]) >= length[..., None]
        # Entries beyond the length get numbers of their own, so that only real repeats are equal.
        own = key.shape[2] + torch.arange(index.shape[2], dtype=torch.int32)
        ordered = torch.where(beyond, own, index).sort(-1).values
        require(not bool((ordered[..., 1:] == ordered[..., :-1]).any()), "index", "a row listed twice", "each row once")
    return index, length
