"""Top-k of long rows: a bound from a sample, one pass that collects what reaches it, and the choice among the collected.

    bound  = about the rank-th largest of `sample` elements, one from a random place in each of as many equal stretches
    kept   = the elements >= bound, in index order, with their indices; once k are kept, only those > bound
    result = the k largest of the kept, if at least k and at most `capacity` were kept

Exact for every input: when the count is right, nothing that was left out can be among the k largest (all kept reach the
bound, and a later element that only equals it has k before it). When it is not, the row is marked, and `selection_radix`
does it again. The places are fixed but scattered, so the order of a row's elements does not matter: as `plan_filter`
chooses the rank, the count is right but for some ten rows in a million, and for rows of NaN.

A row is read once, through asynchronous copies two chunks ahead, plus a sector for each sampled element. Few rows are
split into parts, each collected by its own program; what equals the bound is then dropped from a part that has k kept before
it, so that many ties do not fill the room of all parts. Positions come from prefix sums: no atomics, bitwise reproducible.
"""

import math
from dataclasses import dataclass
from itertools import product

import torch

from topsieve_kernels.backend import ceil_div, jit, multiprocessors, tl
from topsieve_kernels.selection_keys import (
    above_and_tied,
    is_kept,
    key_value,
    narrow_to_rank,
    order_key,
    place_of,
    quarters,
)

CHUNK = 2048
SAMPLES = (1024, 2048, 4096, 8192)
CAPACITIES = (4096, 8192)
COLLECT_WARPS = 4
PROGRAMS_PER_MULTIPROCESSOR = 5
MAXIMUM_PARTS = 32
DEVIATIONS = 4.5
RANK_SLACK = 16
SMALLEST_PART = 8192
ROWS_AT_A_TIME = 4096
"""Bounds the scratch memory: 80 KiB a row."""


@dataclass(frozen=True)
class FilterPlan:
    """How one shape is done: powers of two `sample`, `capacity` and `chunk`, the `rank` of the bound in the sample, parts a row."""

    sample: int
    rank: int
    capacity: int
    parts: int
    chunk: int = CHUNK

    @property
    def rank_limit(self) -> int:
        """Up to where the rank of the bound may lie, so that the search for it ends early."""
        return self.rank + self.rank // RANK_SLACK

    @property
    def slots(self) -> int:
        """Room of one part: a chunk more than the capacity, so that overflow is looked for once a chunk."""
        return self.capacity + self.chunk


@jit
def keep_quarter(value, index, floor, position, kept_ptr, SLOTS: tl.constexpr):
    """Store those that reach `floor` at `position`, and their indices `SLOTS` further."""
    # Unsigned, because a signed position would be widened by instructions of its own.
    place = kept_ptr + position.to(tl.uint32)
    tl.store(place, value.to(tl.int32, bitcast=True), mask=value >= floor)
    tl.store(place + SLOTS, index, mask=value >= floor)


@jit
def keep_chunk(value, first, floor, count, kept_ptr, CHUNK: tl.constexpr, SLOTS: tl.constexpr):
    """Append those of a [CHUNK] that reach `floor`, in order; how many are kept now. `first` is the index of the first."""
    a, b, c, d = quarters(value, CHUNK)
    # One by one, each used below: a plain sum of comparisons may be counted through local memory by the compiler.
    up_to_a = (a >= floor).to(tl.int32)
    up_to_b = up_to_a + (b >= floor).to(tl.int32)
    up_to_c = up_to_b + (c >= floor).to(tl.int32)
    own = up_to_c + (d >= floor).to(tl.int32)
    found = tl.sum(own, axis=0)
    before = count + tl.cumsum(own, axis=0) - own
    index = first + 4 * tl.arange(0, CHUNK // 4)
    keep_quarter(a, index, floor, before, kept_ptr, SLOTS)
    keep_quarter(b, index + 1, floor, before + up_to_a, kept_ptr, SLOTS)
    keep_quarter(c, index + 2, floor, before + up_to_b, kept_ptr, SLOTS)
    keep_quarter(d, index + 3, floor, before + up_to_c, kept_ptr, SLOTS)
    return count + found


@jit
def floor_of(count, k, loose, strict, CAPACITY: tl.constexpr):
    """The least value worth keeping: NaN, which nothing reaches, after an overflow."""
    return tl.where(count > CAPACITY, float("nan"), tl.where(count < k, loose, strict))


@jit
def collect_kernel(
    score_ptr,
    kept_ptr,
    count_ptr,
    bound_ptr,
    columns,
    columns_per_part,
    parts,
    k,
    rank,
    rank_limit,
    SAMPLE_BITS: tl.constexpr,
    CAPACITY: tl.constexpr,
    CHUNK: tl.constexpr,
):
    SLOTS: tl.constexpr = CAPACITY + CHUNK
    SAMPLE: tl.constexpr = 1 << SAMPLE_BITS
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    row_ptr = score_ptr + row * columns

    i = tl.arange(0, SAMPLE).to(tl.uint32)
    # Knuth's multiplicative hash: its high half is the place inside the stretch.
    place = (i.to(tl.uint64) << 16) + ((i * 2654435761) >> 16).to(tl.uint64)
    place = (place * columns) >> (16 + SAMPLE_BITS)
    key = order_key(tl.load(row_ptr + place.to(tl.int32)))
    # Minus infinity at the least, so that a floor is never NaN by accident: too few are kept then, and that is seen.
    least = tl.maximum(tl.min(key, axis=0), 0x007FFFFF)
    bound = narrow_to_rank(key, least, tl.full([], SAMPLE, tl.int32), rank, rank_limit)
    loose = key_value(bound)
    strict = key_value(bound + 1)

    begin = part * columns_per_part
    length = tl.minimum(columns_per_part, columns - begin)
    base = row_ptr + begin
    kept_ptr += (row * parts + part) * 2 * SLOTS
    n = tl.arange(0, CHUNK)
    count = 0
    whole = length // CHUNK * CHUNK
    for start in tl.range(0, whole, CHUNK, num_stages=3):
        value = tl.load(base + start + n)
        floor = floor_of(count, k, loose, strict, CAPACITY)
        count = keep_chunk(value, begin + start, floor, count, kept_ptr, CHUNK, SLOTS)
    # At most once: a mask would cost the loop above two instructions an element.
    for start in range(whole, length, CHUNK):
        value = tl.load(base + start + n, mask=start + n < length, other=float("nan"))
        floor = floor_of(count, k, loose, strict, CAPACITY)
        count = keep_chunk(value, begin + start, floor, count, kept_ptr, CHUNK, SLOTS)
    tl.store(count_ptr + row * parts + part, count)
    tl.store(bound_ptr + row * parts + part, loose)


@jit
def trim_kernel(kept_ptr, count_ptr, trimmed_ptr, bound_ptr, parts, k, CAPACITY: tl.constexpr, CHUNK: tl.constexpr):
    SLOTS: tl.constexpr = CAPACITY + CHUNK
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    count_ptr += row * parts
    earlier = 0
    for other in range(part):
        earlier += tl.load(count_ptr + other)
    count = tl.load(count_ptr + part)
    kept = count
    if (earlier >= k) & (count <= CAPACITY):
        kept = 0
        bound = tl.load(bound_ptr + row * parts + part)
        kept_ptr += (row * parts + part) * 2 * SLOTS
        n = tl.arange(0, CHUNK)
        for start in range(0, count, CHUNK):
            value = tl.load(kept_ptr + start + n).to(tl.float32, bitcast=True)
            index = tl.load(kept_ptr + SLOTS + start + n)
            above = (start + n < count) & (value > bound)
            place = kept_ptr + kept + tl.cumsum(above.to(tl.int32), axis=0) - 1
            # Nobody may store into the tile before everybody has loaded it.
            tl.debug_barrier()
            tl.store(place, value.to(tl.int32, bitcast=True), mask=above)
            tl.store(place + SLOTS, index, mask=above)
            kept += tl.sum(above.to(tl.int32), axis=0)
    tl.store(trimmed_ptr + row * parts + part, kept)


@jit
def emit_quarter(own, before, place, quota, kept_index_ptr, index_ptr):
    """Store the source indices of those that are kept; the next quarter's counts."""
    keep = is_kept(own, before, quota)
    index = tl.load(kept_index_ptr + place, mask=keep, other=0)
    tl.store(index_ptr + place_of(before, quota), index, mask=keep)
    return before + own


@jit
def pick_kernel(
    kept_ptr,
    count_ptr,
    index_ptr,
    threshold_ptr,
    again_ptr,
    parts,
    k,
    SPLIT: tl.constexpr,
    CAPACITY: tl.constexpr,
    CHUNK: tl.constexpr,
):
    SLOTS: tl.constexpr = CAPACITY + CHUNK
    row = tl.program_id(0).to(tl.int64)
    kept_ptr += row * parts * 2 * SLOTS
    slot = tl.arange(0, CAPACITY)
    place = slot
    if SPLIT:
        total = 0
        for part in range(parts):
            place = tl.where(slot >= total, slot - total + part * 2 * SLOTS, place)
            total += tl.load(count_ptr + row * parts + part)
    else:
        total = tl.load(count_ptr + row)
    good = (total >= k) & (total <= CAPACITY)
    tl.store(again_ptr + row, 1 - good.to(tl.int32))
    if good:
        here = slot < total
        # Every slot is in bounds; a mask would break up the loads.
        key = order_key(tl.load(kept_ptr + place).to(tl.float32, bitcast=True))
        key = tl.where(here, key, 0)
        low = tl.min(tl.where(here, key, 0xFFFFFFFF), axis=0)
        low = narrow_to_rank(key, low, total, k, k)
        threshold = tl.min(tl.where(here & (key >= low), key, 0xFFFFFFFF), axis=0)
        tl.store(threshold_ptr + row, key_value(threshold))
        own = above_and_tied(key, here, low)
        quota = k - (tl.sum(own, axis=0) & 0xFFFF)
        own_4 = tl.sum(tl.reshape(own, [CAPACITY // 4, 4]), axis=1)
        before = tl.cumsum(own_4, axis=0) - own_4
        a, b, c, d = quarters(own, CAPACITY)
        place_a, place_b, place_c, place_d = quarters(place, CAPACITY)
        index_ptr += row * k
        before = emit_quarter(a, before, place_a, quota, kept_ptr + SLOTS, index_ptr)
        before = emit_quarter(b, before, place_b, quota, kept_ptr + SLOTS, index_ptr)
        before = emit_quarter(c, before, place_c, quota, kept_ptr + SLOTS, index_ptr)
        emit_quarter(d, before, place_d, quota, kept_ptr + SLOTS, index_ptr)


def pick_warps(capacity: int) -> int:
    """Warps for the kept of one row in registers: 8 a thread, so that two rows share a multiprocessor; at most 16."""
    return min(max(capacity // 256, 1), 16)


def plan_filter(rows: int, columns: int, k: int, processors: int) -> FilterPlan | None:
    """The least sample and room that keep both failures `DEVIATIONS` standard deviations away; None where none do.

    How many of the k largest are in the sample has mean and at most variance `sample * k / columns` (one draw from each
    of equal stretches varies less than free draws). The rank is that mean, the deviations and a few more, so that the
    bound lies below the k-th largest; the largest number of elements of which the sample may still show so few must fit.
    """
    for sample, capacity in sorted(product(SAMPLES, CAPACITIES), key=lambda pair: (max(pair), pair)):
        expected = sample * k / columns
        rank = math.ceil(expected + DEVIATIONS * math.sqrt(expected) + 4)
        shown = rank + rank // RANK_SLACK
        most = (shown + DEVIATIONS * math.sqrt(shown) + 4) * columns / sample
        # Rows mostly of one value at the bound: ties until k are kept, and at most k above them.
        tied = min(2 * k + CHUNK, CAPACITIES[-1])
        if 2 * sample <= columns and max(most, tied) <= capacity:
            wanted = PROGRAMS_PER_MULTIPROCESSOR * processors // max(rows, 1)
            parts = max(min(wanted, MAXIMUM_PARTS, columns // SMALLEST_PART), 1)
            return FilterPlan(sample, rank, capacity, parts)
    return None


def select_filtered(
    scores: torch.Tensor, indices: torch.Tensor, threshold: torch.Tensor, again: torch.Tensor, plan: FilterPlan
) -> None:
    """Fill `indices` and `threshold`; `again` int32 [R] is 1 for the rows that are left to do, else 0.

    Parameters
    ----------
    scores : float32 [R, N], contiguous; R at most `ROWS_AT_A_TIME`.
    indices : int32 [R, k], ascending; k at least 1 and at most `plan.capacity`.
    threshold : float32 [R].
    """
    rows, columns = scores.shape
    k = indices.shape[1]
    # Parts begin at multiples of 16 elements, so that chunks are read 16 bytes at a time.
    columns_per_part = 16 * ceil_div(ceil_div(columns, plan.parts), 16)
    parts = ceil_div(columns, columns_per_part)
    kept = torch.empty((rows, parts, 2, plan.slots), dtype=torch.int32, device=scores.device)
    count = torch.empty((rows, parts), dtype=torch.int32, device=scores.device)
    bound = torch.empty((rows, parts), dtype=torch.float32, device=scores.device)
    size = {"CAPACITY": plan.capacity, "CHUNK": plan.chunk}
    collect_kernel[(rows, parts)](
        scores,
        kept,
        count,
        bound,
        columns,
        columns_per_part,
        parts,
        k,
        plan.rank,
        plan.rank_limit,
        SAMPLE_BITS=plan.sample.bit_length() - 1,
        num_warps=COLLECT_WARPS,
        **size,
    )
    trimmed = count
    if parts > 1:
        trimmed = torch.empty_like(count)
        trim_kernel[(rows, parts)](kept, count, trimmed, bound, parts, k, num_warps=COLLECT_WARPS, **size)
    pick_kernel[(rows,)](
        kept,
        trimmed,
        indices,
        threshold,
        again,
        parts,
        k,
        SPLIT=parts > 1,
        num_warps=pick_warps(plan.capacity),
        **size,
    )


def plan_for(scores: torch.Tensor, k: int) -> FilterPlan | None:
    """`plan_filter` for the operand's GPU."""
    return plan_filter(scores.shape[0], scores.shape[1], k, multiprocessors(scores))
