"""(d) Batched top-k selection: the k largest of every row, lowest index first among equals, indices ascending.

The order is total, so every run and every backend gives the same bits: larger value first, then the lower index; -0 equals
+0; a NaN comes after minus infinity. Rows up to `SHORT_ROW` stay in registers from one read: the k-th key by narrowing
(`selection_keys`), places by prefix sums, no atomics on positions. Longer rows are filtered in one pass
(`selection_filtered`); rows whose filter failed, and all where k is too large a share for it, are done digit by digit in five
passes (`selection_radix`).
"""

from dataclasses import dataclass

import torch

from topsieve_kernels.backend import Backend, choose, jit, next_power_of_2, require, tl
from topsieve_kernels.selection_filtered import ROWS_AT_A_TIME, FilterPlan, plan_for, select_filtered
from topsieve_kernels.selection_keys import (
    above_and_tied,
    is_kept,
    key_value,
    narrow_to_rank,
    order_key,
    place_of,
    quarters,
)
from topsieve_kernels.selection_radix import RADIX_BLOCK, RADIX_WARPS, select_radix_kernel

SHORT_ROW = 8192


@dataclass(frozen=True)
class TopK:
    """indices int32 [R, k], ascending; threshold float32 [R], the k-th largest value (plus infinity when k = 0)."""

    indices: torch.Tensor
    threshold: torch.Tensor


@jit
def emit_quarter(own, before, n, quota, index_ptr):
    """Store the indices of those that are kept; the next quarter's counts."""
    tl.store(index_ptr + place_of(before, quota), n, mask=is_kept(own, before, quota))
    return before + own


@jit
def select_short_kernel(score_ptr, index_ptr, threshold_ptr, columns, k, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK)
    here = n < columns
    key = order_key(tl.load(score_ptr + row * columns + n, mask=here, other=float("nan")))
    low = tl.min(tl.where(here, key, 0xFFFFFFFF), axis=0)
    low = narrow_to_rank(key, low, tl.full([], 0, tl.int32) + columns, k, k)
    threshold = tl.min(tl.where(here & (key >= low), key, 0xFFFFFFFF), axis=0)
    tl.store(threshold_ptr + row, key_value(threshold))
    own = above_and_tied(key, here, low)
    quota = k - (tl.sum(own, axis=0) & 0xFFFF)
    own_4 = tl.sum(tl.reshape(own, [BLOCK // 4, 4]), axis=1)
    before = tl.cumsum(own_4, axis=0) - own_4
    first, second, third, fourth = quarters(own, BLOCK)
    index = 4 * tl.arange(0, BLOCK // 4)
    index_ptr += row * k
    before = emit_quarter(first, before, index, quota, index_ptr)
    before = emit_quarter(second, before, index + 1, quota, index_ptr)
    before = emit_quarter(third, before, index + 2, quota, index_ptr)
    emit_quarter(fourth, before, index + 3, quota, index_ptr)


def short_row_warps(block: int) -> int:
    """Warps for one row in registers: at most 16 elements a thread."""
    return min(max(block // 512, 1), 16)


def topk_select(scores: torch.Tensor, k: int, *, backend: Backend = "auto") -> TopK:
    """The k largest of every row.

    Parameters
    ----------
    scores : floating [R, N], compared in float32 (float64 is refused: it would round).
    k : 0 or more; N or more keeps all.

    Raises
    ------
    ValueError
        shape, dtype or k is not allowed.
    """
    require(scores.ndim == 2 and scores.shape[1] > 0, "scores", tuple(scores.shape), "[R, N], N at least 1")
    require(
        scores.dtype in (torch.float32, torch.float16, torch.bfloat16),
        "scores",
        scores.dtype,
        "float32, float16, bfloat16",
    )
    require(isinstance(k, int) and k >= 0, "k", k, "an integer of 0 or more")
    k = min(k, scores.shape[1])
    if choose(backend, scores, arithmetic=False) == "torch" or k == 0:
        return topk_select_reference(scores, k)
    scores = scores.float().contiguous()
    rows, columns = scores.shape
    indices = torch.empty((rows, k), dtype=torch.int32, device=scores.device)
    threshold = torch.empty(rows, dtype=torch.float32, device=scores.device)
    if columns <= SHORT_ROW:
        block = max(next_power_of_2(columns), 128)
        select_short_kernel[(rows,)](
            scores, indices, threshold, columns, k, BLOCK=block, num_warps=short_row_warps(block)
        )
        return TopK(indices, threshold)
    for first in range(0, rows, ROWS_AT_A_TIME):
        some = slice(first, first + ROWS_AT_A_TIME)
        select_long(scores[some], indices[some], threshold[some], plan_for(scores[some], k))
    return TopK(indices, threshold)


def select_long(scores: torch.Tensor, indices: torch.Tensor, threshold: torch.Tensor, plan: FilterPlan | None) -> None:
    """Fill int32 `indices` [R, k] and float32 `threshold` [R] from contiguous float32 `scores` [R, N]."""
    rows, columns = scores.shape
    again = torch.empty(rows, dtype=torch.int32, device=scores.device)
    if plan is not None:
        select_filtered(scores, indices, threshold, again, plan)
    # Launched whether or not a row is left: to look would make the host wait.
    select_radix_kernel[(rows,)](
        scores,
        indices,
        threshold,
        again,
        columns,
        indices.shape[1],
        HAS_AGAIN=plan is not None,
        BLOCK=RADIX_BLOCK,
        num_warps=RADIX_WARPS,
    )


def topk_select_reference(scores: torch.Tensor, k: int) -> TopK:
    """The definition: a stable descending sort with NaN made smallest, cut at k, indices sorted again."""
    values = scores.float()
    number = ~values.isnan()
    order = torch.where(number, values, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    # A second stable sort puts the NaNs behind minus infinity and leaves every other order as it was.
    order = order.gather(1, number.gather(1, order).byte().sort(dim=1, descending=True, stable=True).indices)
    k = min(k, values.shape[1])
    if k == 0:
        return TopK(
            torch.empty((values.shape[0], 0), dtype=torch.int32, device=values.device),
            torch.full((values.shape[0],), torch.inf, device=values.device),
        )
    threshold = values.gather(1, order[:, k - 1 : k])[:, 0]
    return TopK(order[:, :k].sort(1).values.to(torch.int32), threshold + 0.0)
