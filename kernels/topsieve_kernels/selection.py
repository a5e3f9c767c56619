"""(d) Batched top-k selection: the k largest of every row, lowest index first among equals, indices ascending.

The order is total, so every run and every backend gives the same bits: larger value first, then the lower index; -0 equals
+0; a NaN comes after minus infinity. Each float32 becomes an unsigned key that orders the same way; four passes over 8-bit
digits (a histogram and its suffix sums each) find the k-th key and how many of its equals to keep; prefix sums place the
survivors: no atomics on positions. Rows up to `SHORT_ROW` stay in registers from one read; longer ones are read once from
memory and again from cache. One program does one row: few, very long rows leave most of the chip idle.
"""

from dataclasses import dataclass

import torch

from topsieve_kernels.backend import Backend, choose, jit, next_power_of_2, require, tl

SHORT_ROW = 4096
LONG_BLOCK = 4096


@dataclass(frozen=True)
class TopK:
    """indices int32 [R, k], ascending; threshold float32 [R], the k-th largest value (plus infinity when k = 0)."""

    indices: torch.Tensor
    threshold: torch.Tensor


@jit
def order_key(value):
    """Unsigned 32-bit integers that order as the floats do; 0 for NaN, both zeros alike."""
    bits = tl.where(value == 0.0, 0.0, value).to(tl.uint32, bitcast=True)
    flipped = tl.where(bits >= 0x80000000, bits ^ 0xFFFFFFFF, bits | 0x80000000)
    return tl.where(value == value, flipped, 0)


@jit
def key_value(key):
    """The float32 of an order key; NaN for 0."""
    bits = tl.where(key >= 0x80000000, key & 0x7FFFFFFF, key ^ 0xFFFFFFFF)
    return bits.to(tl.float32, bitcast=True)


@jit
def digit_of_kth(histogram, remaining):
    """The largest digit with at least `remaining` elements at or above it, and how many lie above that digit."""
    at_or_above = tl.cumsum(histogram, axis=0, reverse=True)
    digit = tl.sum((at_or_above >= remaining).to(tl.int32), axis=0) - 1
    bins = tl.arange(0, 256)
    return digit, tl.sum(tl.where(bins > digit, histogram, 0), axis=0)


@jit
def select_short_kernel(score_ptr, index_ptr, threshold_ptr, columns, k, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    n = tl.arange(0, BLOCK)
    here = n < columns
    key = order_key(tl.load(score_ptr + row * columns + n, mask=here, other=0.0))
    candidate = here
    prefix = tl.full([], 0, tl.uint32)
    remaining = k
    for step in tl.static_range(4):
        digit = ((key >> (24 - 8 * step)) & 255).to(tl.int32)
        counted = tl.sum(candidate.to(tl.int32), axis=0)
        histogram = tl.histogram(tl.where(candidate, digit, 0), 256)
        # Elements that are no candidates were counted as digit 0.
        histogram = tl.where(tl.arange(0, 256) == 0, histogram - (BLOCK - counted), histogram)
        chosen, above = digit_of_kth(histogram, remaining)
        candidate = candidate & (digit == chosen)
        prefix = prefix | (chosen.to(tl.uint32) << (24 - 8 * step))
        remaining = remaining - above
    equal = here & (key == prefix)
    tie_rank = tl.cumsum(equal.to(tl.int32), axis=0)
    keep = (here & (key > prefix)) | (equal & (tie_rank <= remaining))
    position = tl.cumsum(keep.to(tl.int32), axis=0) - 1
    tl.store(index_ptr + row * k + position, n, mask=keep)
    tl.store(threshold_ptr + row, key_value(prefix))


@jit
def select_long_kernel(score_ptr, index_ptr, threshold_ptr, columns, k, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    base = score_ptr + row * columns
    prefix = tl.full([], 0, tl.uint32)
    remaining = k
    for step in tl.static_range(4):
        histogram = tl.zeros([256], tl.int32)
        for start in range(0, columns, BLOCK):
            n = start + tl.arange(0, BLOCK)
            key = order_key(tl.load(base + n, mask=n < columns, other=0.0))
            candidate = n < columns
            if step > 0:
                candidate = candidate & ((key >> (32 - 8 * step)) == (prefix >> (32 - 8 * step)))
            digit = ((key >> (24 - 8 * step)) & 255).to(tl.int32)
            counted = tl.sum(candidate.to(tl.int32), axis=0)
            part = tl.histogram(tl.where(candidate, digit, 0), 256)
            histogram += tl.where(tl.arange(0, 256) == 0, part - (BLOCK - counted), part)
        chosen, above = digit_of_kth(histogram, remaining)
        prefix = prefix | (chosen.to(tl.uint32) << (24 - 8 * step))
        remaining = remaining - above
    emitted = 0
    ties = 0
    for start in range(0, columns, BLOCK):
        n = start + tl.arange(0, BLOCK)
        here = n < columns
        key = order_key(tl.load(base + n, mask=here, other=0.0))
        equal = here & (key == prefix)
        tie_rank = ties + tl.cumsum(equal.to(tl.int32), axis=0)
        keep = (here & (key > prefix)) | (equal & (tie_rank <= remaining))
        position = emitted + tl.cumsum(keep.to(tl.int32), axis=0) - 1
        tl.store(index_ptr + row * k + position, n, mask=keep)
        emitted += tl.sum(keep.to(tl.int32), axis=0)
        ties += tl.sum(equal.to(tl.int32), axis=0)
    tl.store(threshold_ptr + row, key_value(prefix))


def short_row_warps(block: int) -> int:
    """Warps for one row in registers: at most 16 elements a thread."""
    return min(max(block // 512, 1), 8)


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
    else:
        select_long_kernel[(rows,)](scores, indices, threshold, columns, k, BLOCK=LONG_BLOCK, num_warps=8)
    return TopK(indices, threshold)


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
