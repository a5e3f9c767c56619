"""Top-k of long rows for any k and any scores: the k-th key digit by digit, in five passes over the row.

Four passes over 8-bit digits (a histogram and its suffix sums each) find the k-th key and how many of its equals to keep;
the fifth places the survivors by prefix sums. One program does one row, without regard to what it holds.
"""

from topsieve_kernels.backend import jit, tl
from topsieve_kernels.selection_keys import key_value, order_key

RADIX_BLOCK = 4096
RADIX_WARPS = 8


@jit
def digit_of_kth(histogram, remaining):
    """The largest digit with at least `remaining` elements at or above it, and how many lie above that digit."""
    at_or_above = tl.cumsum(histogram, axis=0, reverse=True)
    digit = tl.sum((at_or_above >= remaining).to(tl.int32), axis=0) - 1
    bins = tl.arange(0, 256)
    return digit, tl.sum(tl.where(bins > digit, histogram, 0), axis=0)


@jit
def radix_row(base, index_ptr, threshold_ptr, columns, k, BLOCK: tl.constexpr):
    """Select one row that begins at `base`; `index_ptr` and `threshold_ptr` point at its results."""
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
            # Elements that are no candidates were counted as digit 0.
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
        tl.store(index_ptr + position, n, mask=keep)
        emitted += tl.sum(keep.to(tl.int32), axis=0)
        ties += tl.sum(equal.to(tl.int32), axis=0)
    tl.store(threshold_ptr, key_value(prefix))


@jit
def select_radix_kernel(
    score_ptr, index_ptr, threshold_ptr, again_ptr, columns, k, HAS_AGAIN: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    wanted = 1
    if HAS_AGAIN:
        wanted = tl.load(again_ptr + row)
    if wanted != 0:
        radix_row(score_ptr + row * columns, index_ptr + row * k, threshold_ptr + row, columns, k, BLOCK)
