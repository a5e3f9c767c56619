"""(c) Progressive decode: scores from the MSB plane of the keys; the LSB plane is read only for rows that are unsure.

With whole keys K = 16 msb + lsb (`nibble_planes`) and a query of integers, a row r = (batch, query head):

    first pass    A[r, n] = 16 sum over d of q[r, d] msb[n, d]            the LSB plane read as 0, as the machine does
    score         s[r, n] = A[r, n] query_step[r] key_step[n] scale
    flag          p_max(r) = max over n of softmax(s[r])_n = 1 / sum over n of exp(s[r, n] - max s[r])  <  threshold
    second pass   A[r, n] += sum over d of q[r, d] lsb[n, d]              flagged rows only
    output        softmax(s) V, V in int8 with a step per row

(SpAtten III-D; specification `accelerator`, section 1.4.) A is an exact integer: 8-bit products, 32-bit sums. The second
pass reuses the stored sums and reads the LSB plane alone; it reads it for a key-value head when any of its query heads
is flagged, and the others keep their first result. Three launches and a combine, because a flag depends on the whole row:
it pays when reading the plane takes longer than a launch.
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
    tl,
)
from topsieve_kernels.nibble_planes import NibblePlanes, unpack_planes
from topsieve_kernels.split_combine import combine, split_count


@dataclass(frozen=True)
class ProgressiveResult:
    """output float16 [B, Hq, D]; log_sum_exp float32 [B, Hq]; flagged bool [B, Hq], rows computed twice; accumulator
    int32 [B, Hq, N], exact sums (0 beyond the length); probability float32 [B, Hq, N] or None."""

    output: torch.Tensor
    log_sum_exp: torch.Tensor
    flagged: torch.Tensor
    accumulator: torch.Tensor
    probability: torch.Tensor | None


@jit
def plane_scores_kernel(
    query_ptr,
    query_factor_ptr,
    plane_ptr,
    step_ptr,
    length_ptr,
    flag_ptr,
    accumulator_ptr,
    part_largest_ptr,
    part_sum_ptr,
    keys,
    keys_per_part,
    group,
    SECOND_PASS: tl.constexpr,
    HALF_DIM: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    part = tl.program_id(0)
    parts = tl.num_programs(0)
    pair = tl.program_id(1).to(tl.int64)
    g = tl.arange(0, BLOCK_G)
    h = tl.arange(0, BLOCK_H)
    row = pair * group + g
    update = g < group
    if SECOND_PASS:
        update = update & (tl.load(flag_ptr + row, mask=g < group, other=0) != 0)
    # In the first pass some row is always wanted; in the second, no flag in the group means no byte is read.
    if tl.max(update.to(tl.int32), axis=0) > 0:
        query_base = query_ptr + row[:, None] * (2 * HALF_DIM) + h[None, :]
        query_here = (g[:, None] < group) & (h[None, :] < HALF_DIM)
        query_low = tl.load(query_base, mask=query_here, other=0)
        query_high = tl.load(query_base + HALF_DIM, mask=query_here, other=0)
        # What the offset of 8 in one half of the plane's numbers adds to every sum.
        if SECOND_PASS:
            offset = 8 * tl.sum(query_high.to(tl.int32), axis=1)
        else:
            offset = -128 * tl.sum(query_low.to(tl.int32), axis=1)
        factor = tl.load(query_factor_ptr + row, mask=g < group, other=0.0)
        length = tl.load(length_ptr + pair)
        largest = tl.full([BLOCK_G], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_G], tl.float32)
        first = part * keys_per_part
        last = tl.minimum(first + keys_per_part, keys)
        for start in range(first, last, BLOCK_N):
            n = start + tl.arange(0, BLOCK_N)
            live = (n < last) & (n < length)
            packed = tl.load(
                plane_ptr + (pair * keys + n[:, None]) * HALF_DIM + h[None, :],
                mask=live[:, None] & (h[None, :] < HALF_DIM),
                other=0,
            )
            # Bit operations only, which work on four bytes at once: msb + 8 and 16 msb, or lsb and 16 (lsb - 8).
            low = ((packed & 15) ^ (0 if SECOND_PASS else 8)).to(tl.int8, bitcast=True)
            high = ((packed & 240) ^ (128 if SECOND_PASS else 0)).to(tl.int8, bitcast=True)
            of_low = tl.dot(query_low, tl.trans(low), out_dtype=tl.int32)
            of_high = tl.dot(query_high, tl.trans(high), out_dtype=tl.int32)
            if SECOND_PASS:
                exact = of_low + (of_high >> 4) + offset[:, None]
            else:
                exact = 16 * of_low + of_high + offset[:, None]
            address = accumulator_ptr + row[:, None] * keys + n[None, :]
            here = update[:, None] & (n[None, :] < last)
            if SECOND_PASS:
                exact += tl.load(address, mask=here, other=0)
            tl.store(address, exact, mask=here)
            step = tl.load(step_ptr + pair * keys + n, mask=live, other=0.0)
            score = exact.to(tl.float32) * factor[:, None] * step[None, :]
            score = tl.where(live[None, :], score, float("-inf"))
            new_largest = tl.maximum(largest, tl.max(score, axis=1))
            reference = tl.where(new_largest == float("-inf"), 0.0, new_largest)
            total = total * tl.exp2(largest - reference) + tl.sum(tl.exp2(score - reference[:, None]), axis=1)
            largest = new_largest
        tl.store(part_largest_ptr + row * parts + part, largest, mask=update)
        tl.store(part_sum_ptr + row * parts + part, total, mask=update)


@jit
def flag_kernel(part_largest_ptr, part_sum_ptr, flag_ptr, parts, threshold, BLOCK_PARTS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, BLOCK_PARTS)
    largest_of = tl.load(part_largest_ptr + row * parts + part, mask=part < parts, other=float("-inf"))
    largest = tl.max(largest_of, axis=0)
    reference = tl.where(largest == float("-inf"), 0.0, largest)
    part_sum = tl.load(part_sum_ptr + row * parts + part, mask=part < parts, other=0.0)
    total = tl.sum(tl.exp2(largest_of - reference) * part_sum, axis=0)
    # 1 / total < threshold, without the division; an empty row (total 0) is not unsure.
    tl.store(flag_ptr + row, (total * threshold > 1.0).to(tl.int8))


@jit
def weighted_value_kernel(
    accumulator_ptr,
    query_factor_ptr,
    step_ptr,
    value_ptr,
    value_step_ptr,
    length_ptr,
    part_largest_ptr,
    part_output_ptr,
    score_ptr,
    keys,
    keys_per_part,
    group,
    HEAD_DIM: tl.constexpr,
    WRITE_SCORE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    part = tl.program_id(0)
    parts = tl.num_programs(0)
    pair = tl.program_id(1).to(tl.int64)
    g = tl.arange(0, BLOCK_G)
    d = tl.arange(0, BLOCK_D)
    row = pair * group + g
    factor = tl.load(query_factor_ptr + row, mask=g < group, other=0.0)
    largest = tl.load(part_largest_ptr + row * parts + part, mask=g < group, other=float("-inf"))
    reference = tl.where(largest == float("-inf"), 0.0, largest)
    length = tl.load(length_ptr + pair)
    output = tl.zeros([BLOCK_G, BLOCK_D], tl.float32)
    first = part * keys_per_part
    last = tl.minimum(first + keys_per_part, keys)
    for start in range(first, last, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        live = (n < last) & (n < length)
        address = row[:, None] * keys + n[None, :]
        here = (g[:, None] < group) & (n[None, :] < last)
        exact = tl.load(accumulator_ptr + address, mask=here, other=0)
        step = tl.load(step_ptr + pair * keys + n, mask=live, other=0.0)
        score = exact.to(tl.float32) * factor[:, None] * step[None, :]
        score = tl.where(live[None, :], score, float("-inf"))
        if WRITE_SCORE:
            tl.store(score_ptr + address, score, mask=here)
        # Weights of at most 1 fit float16 without underflow that matters; probabilities of a flat row would not.
        weight = tl.exp2(score - reference[:, None]).to(tl.float16)
        value = tl.load(
            value_ptr + (pair * keys + n[:, None]) * HEAD_DIM + d[None, :],
            mask=live[:, None] & (d[None, :] < HEAD_DIM),
            other=0,
        )
        value_step = tl.load(value_step_ptr + pair * keys + n, mask=live, other=0.0)
        output += tl.dot(weight, (value.to(tl.float32) * value_step[:, None]).to(tl.float16))
    tl.store(
        part_output_ptr + (row[:, None] * parts + part) * HEAD_DIM + d[None, :],
        output,
        mask=(g[:, None] < group) & (d[None, :] < HEAD_DIM),
    )


SCORE_BLOCKS = {"BLOCK_N": 128, "num_warps": 4, "num_stages": 3}
VALUE_BLOCKS = {"BLOCK_N": 64, "num_warps": 4, "num_stages": 2}


def decode_progressive(
    query: torch.Tensor,
    query_step: torch.Tensor,
    key: NibblePlanes,
    value: torch.Tensor,
    value_step: torch.Tensor,
    length: torch.Tensor | None = None,
    *,
    threshold: float,
    scale: float | None = None,
    probabilities: bool = False,
    backend: Backend = "auto",
) -> ProgressiveResult:
    """Attention of one query per head over a cache of nibble planes.

    Parameters
    ----------
    query : int8 [B, Hq, D]; query_step : float32 [B, Hq].
    key : planes uint8 [B, Hk, N, D/2] with steps [B, Hk, N]; D even, at most 256.
    value : int8 [B, Hk, N, D]; value_step : float32 [B, Hk, N].
    length : integer [B, Hk], keys in use; None for all N.
    threshold : rows with p_max below it are computed again; 0 never, above 1 always.
    scale : factor of the scores, 1/sqrt(D) when None.

    Raises
    ------
    ValueError
        a shape or dtype does not fit, or the threshold is negative.
    """
    length = _check(query, query_step, key, value, value_step, length, threshold)
    scale = 1.0 / math.sqrt(query.shape[2]) if scale is None else scale
    operands = (query, key.msb, key.lsb, value)
    if choose(backend, *operands) == "torch":
        return decode_progressive_reference(
            query,
            query_step,
            key,
            value,
            value_step,
            length,
            threshold=threshold,
            scale=scale,
            probabilities=probabilities,
        )
    query, msb, lsb, value = (operand.contiguous() for operand in operands)
    batch, query_heads, head_dim = query.shape
    key_heads, keys = msb.shape[1], msb.shape[2]
    group, half = query_heads // key_heads, head_dim // 2
    pairs, rows = batch * key_heads, batch * query_heads
    block = max(SCORE_BLOCKS["BLOCK_N"], VALUE_BLOCKS["BLOCK_N"])
    parts = split_count(pairs, keys, block, query)
    keys_per_part = ceil_div(ceil_div(keys, parts), block) * block
    parts = ceil_div(keys, keys_per_part)
    factor = (query_step.float() * (scale * LOG2_E)).contiguous()
    key_step, value_step = key.step.float().contiguous(), value_step.float().contiguous()
    if length is None:
        length = torch.full((batch, key_heads), keys, dtype=torch.int32, device=query.device)
    accumulator = torch.empty((batch, query_heads, keys), dtype=torch.int32, device=query.device)
    flags = torch.empty((batch, query_heads), dtype=torch.int8, device=query.device)
    part_largest = torch.empty((batch, query_heads, parts), dtype=torch.float32, device=query.device)
    part_sum = torch.empty_like(part_largest)
    part_output = torch.empty((batch, query_heads, parts, head_dim), dtype=torch.float32, device=query.device)
    score = torch.empty(accumulator.shape, dtype=torch.float32, device=query.device) if probabilities else None
    block_g = max(next_power_of_2(group), 16)

    def score_pass(plane: torch.Tensor, second: bool) -> None:
        plane_scores_kernel[(parts, pairs)](
            query,
            factor,
            plane,
            key_step,
            length,
            flags,
            accumulator,
            part_largest,
            part_sum,
            keys,
            keys_per_part,
            group,
            SECOND_PASS=second,
            HALF_DIM=half,
            BLOCK_H=max(next_power_of_2(half), 32),
            BLOCK_G=block_g,
            **SCORE_BLOCKS,
        )

    score_pass(msb, second=False)
    flag_kernel[(rows,)](
        part_largest, part_sum, flags, parts, float(threshold), BLOCK_PARTS=next_power_of_2(parts), num_warps=1
    )
    if threshold > 0:
        score_pass(lsb, second=True)
    weighted_value_kernel[(parts, pairs)](
        accumulator,
        factor,
        key_step,
        value,
        value_step,
        length,
        part_largest,
        part_output,
        factor if score is None else score,
        keys,
        keys_per_part,
        group,
        HEAD_DIM=head_dim,
        WRITE_SCORE=probabilities,
        BLOCK_D=max(next_power_of_2(head_dim), 16),
        BLOCK_G=block_g,
        **VALUE_BLOCKS,
    )
    output, lse = combine(part_output, part_largest, part_sum, torch.float16, score)
    return ProgressiveResult(output, lse, flags.bool(), accumulator, score)


def decode_progressive_reference(
    query: torch.Tensor,
    query_step: torch.Tensor,
    key: NibblePlanes,
    value: torch.Tensor,
    value_step: torch.Tensor,
    length: torch.Tensor | None = None,
    *,
    threshold: float,
    scale: float | None = None,
    probabilities: bool = False,
) -> ProgressiveResult:
    """The definition: exact integer sums, the rest in float64."""
    length = _check(query, query_step, key, value, value_step, length, threshold)
    batch, query_heads, head_dim = query.shape
    key_heads = key.msb.shape[1]
    group, keys = query_heads // key_heads, key.msb.shape[2]
    scale = 1.0 / math.sqrt(head_dim) if scale is None else scale
    msb, lsb = (plane.double().repeat_interleave(group, 1) for plane in unpack_planes(key))
    step, value_step = (x.double().repeat_interleave(group, 1) for x in (key.step, value_step))
    # Integers below 2^53 are exact in float64, whatever the order of the additions.
    first = (16.0 * msb @ query.double()[..., None])[..., 0]
    second = first + (lsb @ query.double()[..., None])[..., 0]
    beyond = torch.zeros((batch, query_heads, keys), dtype=torch.bool, device=query.device)
    if length is not None:
        beyond = torch.arange(keys, device=query.device) >= length.repeat_interleave(group, 1)[..., None]

    def scores(accumulator: torch.Tensor) -> torch.Tensor:
        return (accumulator * (query_step.double()[..., None] * step * scale)).masked_fill(beyond, -math.inf)

    first_score = scores(first)
    flagged = (first_score.amax(-1) - first_score.logsumexp(-1)).exp() < threshold
    accumulator = torch.where(flagged[..., None], second, first).masked_fill(beyond, 0.0)
    score = scores(accumulator)
    lse = score.logsumexp(-1)
    probability = (score - lse[..., None]).exp().masked_fill(beyond, 0.0)
    whole = (value.double().repeat_interleave(group, 1)) * value_step[..., None]
    output = (probability[..., None, :] @ whole)[..., 0, :]
    return ProgressiveResult(
        output.half(), lse.float(), flagged, accumulator.to(torch.int32), probability.float() if probabilities else None
    )


def _check(
    query: torch.Tensor,
    query_step: torch.Tensor,
    key: NibblePlanes,
    value: torch.Tensor,
    value_step: torch.Tensor,
    length: torch.Tensor | None,
    threshold: float,
) -> torch.Tensor | None:
    require(
        query.ndim == 3 and query.dtype == torch.int8, "query", (tuple(query.shape), query.dtype), "int8 [B, Hq, D]"
    )
    batch, query_heads, head_dim = query.shape
    even = head_dim % 2 == 0 and 0 < head_dim <= MAXIMUM_HEAD_DIM
    require(even, "head_dim", head_dim, f"an even number up to {MAXIMUM_HEAD_DIM}")
    require(
        tuple(query_step.shape) == (batch, query_heads),
        "query_step",
        tuple(query_step.shape),
        f"({batch}, {query_heads})",
    )
    shape = tuple(key.msb.shape)
    require(
        len(shape) == 4
        and shape[0] == batch
        and query_heads % max(shape[1], 1) == 0
        and shape[3] * 2 == head_dim
        and shape[2] > 0,
        "key",
        shape,
        f"[{batch}, a divisor of {query_heads}, N, {head_dim // 2}], N at least 1",
    )
    require(tuple(key.lsb.shape) == shape, "key.lsb", tuple(key.lsb.shape), f"the shape of key.msb {shape}")
    require(key.msb.dtype == key.lsb.dtype == torch.uint8, "key", (key.msb.dtype, key.lsb.dtype), "uint8 planes")
    for name, rows in (("key.step", key.step), ("value_step", value_step)):
        require(tuple(rows.shape) == shape[:3], name, tuple(rows.shape), str(shape[:3]))
    require(
        tuple(value.shape) == (*shape[:3], head_dim) and value.dtype == torch.int8,
        "value",
        (tuple(value.shape), value.dtype),
        f"int8 {(*shape[:3], head_dim)}",
    )
    require(threshold >= 0, "threshold", threshold, "0 or more")
    if length is None:
        return None
    require(tuple(length.shape) == shape[:2], "length", tuple(length.shape), str(shape[:2]))
    return length.to(torch.int32).contiguous()
