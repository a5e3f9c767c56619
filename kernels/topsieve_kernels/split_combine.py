"""The end of every split decode: one softmax over parts that were computed apart.

Part j of a row holds its largest score m_j (base 2), l_j = sum of 2^(score - m_j) and o_j = sum of 2^(score - m_j) value.
With m the largest m_j:  l = sum_j 2^(m_j - m) l_j,  output = sum_j 2^(m_j - m) o_j / l,  log-sum-exp = (m + log2 l) ln 2.
"""

import torch

from topsieve_kernels.backend import ceil_div, jit, multiprocessors, next_power_of_2, tl

PROBABILITY_BLOCK = 1024
MAXIMUM_PARTS = 256
# Eight turns of the three programs that fit a multiprocessor: the last turn's gaps are then a few percent of the time.
PROGRAMS_PER_MULTIPROCESSOR = 24
# Columns below which a part's own output, written and read again, would be more than a few percent of what it reads.
SHORTEST_PART = 256
TILE_PARTS = 16


@jit
def combine_kernel(
    part_output_ptr,
    part_largest_ptr,
    part_sum_ptr,
    score_ptr,
    output_ptr,
    lse_ptr,
    probability_columns,
    parts,
    HEAD_DIM: tl.constexpr,
    WRITE_PROBABILITY: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_PARTS: tl.constexpr,
    TILE_PARTS: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64)
    part = tl.arange(0, BLOCK_PARTS)
    largest_of = tl.load(part_largest_ptr + row * parts + part, mask=part < parts, other=float("-inf"))
    largest = tl.max(largest_of, axis=0)
    reference = tl.where(largest == float("-inf"), 0.0, largest)
    share = tl.exp2(largest_of - reference)
    total = tl.sum(share * tl.load(part_sum_ptr + row * parts + part, mask=part < parts, other=0.0), axis=0)
    inverse = tl.where(total > 0.0, 1.0 / total, 0.0)
    if tl.program_id(0) == 0:
        d = tl.arange(0, BLOCK_D)
        output = tl.zeros([BLOCK_D], tl.float32)
        for start in range(0, parts, TILE_PARTS):
            j = start + tl.arange(0, TILE_PARTS)
            weight = tl.exp2(
                tl.load(part_largest_ptr + row * parts + j, mask=j < parts, other=float("-inf")) - reference
            )
            tile = tl.load(
                part_output_ptr + (row * parts + j[:, None]) * HEAD_DIM + d[None, :],
                mask=(j[:, None] < parts) & (d[None, :] < HEAD_DIM),
                other=0.0,
            )
            output += tl.sum(tile * weight[:, None], axis=0)
        output = output * inverse
        tl.store(output_ptr + row * HEAD_DIM + d, output.to(output_ptr.dtype.element_ty), mask=d < HEAD_DIM)
        lse = tl.where(total > 0.0, (reference + tl.log2(total)) * 0.6931471805599453, float("-inf"))
        tl.store(lse_ptr + row, lse)
    if WRITE_PROBABILITY:
        t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
        score = tl.load(score_ptr + row * probability_columns + t, mask=t < probability_columns, other=float("-inf"))
        tl.store(
            score_ptr + row * probability_columns + t,
            tl.exp2(score - reference) * inverse,
            mask=t < probability_columns,
        )


def split_count(groups: int, columns: int, block: int, operand: torch.Tensor) -> int:
    """Parts per row for `groups` rows that are split alike.

    Two programs a multiprocessor at least, however short their parts. Where rows are long, many more: programs end at
    different times, and a machine that waits for the last of few stands idle for a good part of one.
    """
    chip = multiprocessors(operand)
    fill = ceil_div(2 * chip, max(groups, 1))
    even = min(ceil_div(PROGRAMS_PER_MULTIPROCESSOR * chip, max(groups, 1)), columns // SHORTEST_PART)
    return max(1, min(max(fill, even), ceil_div(columns, block), MAXIMUM_PARTS))


def combine(
    part_output: torch.Tensor,
    part_largest: torch.Tensor,
    part_sum: torch.Tensor,
    dtype: torch.dtype,
    score: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [B, Hq, D] in `dtype` and log-sum-exp float32 [B, Hq].

    part_output : float32 [B, Hq, parts, D]; part_largest, part_sum : float32 [B, Hq, parts].
    score : float32 [B, Hq, T] in base-2 units, turned into probabilities where it lies, or None.
    """
    batch, heads, parts, head_dim = part_output.shape
    output = torch.empty((batch, heads, head_dim), dtype=dtype, device=part_output.device)
    lse = torch.empty((batch, heads), dtype=torch.float32, device=part_output.device)
    columns = 0 if score is None else score.shape[2]
    combine_kernel[(max(ceil_div(columns, PROBABILITY_BLOCK), 1), batch * heads)](
        part_output,
        part_largest,
        part_sum,
        part_sum if score is None else score,
        output,
        lse,
        columns,
        parts,
        HEAD_DIM=head_dim,
        WRITE_PROBABILITY=score is not None,
        BLOCK_D=next_power_of_2(head_dim),
        BLOCK_PARTS=next_power_of_2(parts),
        TILE_PARTS=TILE_PARTS,
        BLOCK_T=PROBABILITY_BLOCK,
        num_warps=4,
    )
    return output, lse
