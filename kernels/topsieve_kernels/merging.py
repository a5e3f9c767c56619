"""(e) Bipartite soft matching and merging of tokens: match, choose, plan, merge.

Even tokens are sources, odd tokens destinations (ToMe, arXiv 2210.09461, section 3):

    partner[a] = the destination most like source a (`matching.py`)
    the r sources with the largest best score (lowest a first among equals) join their partners
    merged x[b] = sum of size x / sum of size over b and its sources;   size[b] = the sum of the sizes

Survivors keep their order. Every source has at most one edge, so "best partner, then the r best sources" is the exact
optimum of "r edges of largest total score with at most one per source".

The merge moves tiles of rows: an even survivor is copied, an odd one adds its sources in ascending order, as the plan
(`merge_plan.py`) lists them. No atomics, bitwise reproducible. A list of up to `SHORT_LIST` needs no plan.

Launches: norms (not where one tile holds all destinations), match, selection, plan (not for short lists), merge; and one
more than there are runs of protected tokens, where there are any.
"""

from dataclasses import dataclass

import torch

from topsieve_kernels.backend import Backend, ceil_div, choose, jit, next_power_of_2, require, rows_last, tl
from topsieve_kernels.matching import best_partners
from topsieve_kernels.merge_plan import Plan, plan_merge
from topsieve_kernels.selection import topk_select

SHORT_LIST = 32
MERGE_BYTES = 4096
MERGE_WARPS = 4


@dataclass(frozen=True)
class Merge:
    """tokens [B, N - r, C] in the input's dtype, size float32 [B, N - r]; int32: kept [B, N - r] token ids ascending,
    source [B, r] token ids ascending, destination [B, r] the token id each source joined."""

    tokens: torch.Tensor
    size: torch.Tensor
    kept: torch.Tensor
    source: torch.Tensor
    destination: torch.Tensor


@jit
def load_tile(base, token, stride, c, here, channels):
    """Channels c of those tokens that are here, zeros elsewhere."""
    row = base + token.to(tl.int64) * stride
    return tl.load(row[:, None] + c[None, :], mask=here[:, None] & (c[None, :] < channels), other=0.0)


@jit
def planned_source(order, first, count, number):
    """The number-th source of every destination, and whether there is one."""
    here = number < count
    return tl.load(order + first + number, mask=here, other=0), here


@jit
def next_source(candidate, last, tokens):
    """The lowest candidate above the last one in every row, and whether there is one; `tokens` is none."""
    source = tl.min(tl.where(candidate > last[:, None], candidate, tokens), axis=1)
    return source, source < tokens


@jit
def joined_size(size, token, here, HAS_SIZE: tl.constexpr):
    """How many tokens each stands for, 0 where it is not here."""
    if HAS_SIZE:
        return tl.load(size + token, mask=here, other=0.0)
    return here.to(tl.float32)


@jit
def add_weighted(total, row, size, HAS_SIZE: tl.constexpr):
    """total + size row in float32; without sizes, total + row."""
    if HAS_SIZE:
        return total + row.to(tl.float32) * size[:, None]
    return total + row.to(tl.float32)


@jit
def merge_kernel(
    token_ptr,
    size_ptr,
    chosen_ptr,
    partner_ptr,
    order_ptr,
    place_ptr,
    first_ptr,
    count_ptr,
    merged_ptr,
    merged_size_ptr,
    kept_ptr,
    source_ptr,
    destination_ptr,
    token_stride_b,
    token_stride_n,
    tokens,
    channels,
    removed,
    HAS_SIZE: tl.constexpr,
    PLANNED: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    batch = tl.program_id(2).to(tl.int64)
    sources = (tokens + 1) // 2
    start = tl.program_id(1) * BLOCK_P
    pair = start + tl.arange(0, BLOCK_P)
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    within = c[None, :] < channels
    even = pair < sources
    odd = 2 * pair + 1 < tokens
    base = token_ptr + batch * token_stride_b
    own = load_tile(base, 2 * pair + 1, token_stride_n, c, odd, channels)
    if PLANNED:
        place = tl.load(place_ptr + batch * sources + pair, mask=even, other=1)
        first = tl.load(first_ptr + batch * sources + pair, mask=odd, other=0)
        count = tl.load(count_ptr + batch * sources + pair, mask=odd, other=0)
    else:
        e = tl.arange(0, BLOCK_R)
        chosen = tl.load(chosen_ptr + batch * removed + e, mask=e < removed, other=tokens)
        partner = tl.load(partner_ptr + batch * sources + chosen, mask=e < removed, other=-1)
        below = tl.sum((chosen[None, :] < pair[:, None]).to(tl.int32), axis=1)
        leaves = tl.sum((chosen[None, :] == pair[:, None]).to(tl.int32), axis=1)
        place = tl.where(even, 2 * (2 * pair - below) + leaves, 1)
        joins = partner[None, :] == 2 * pair[:, None] + 1
        count = tl.sum(joins.to(tl.int32), axis=1)
        candidate = tl.where(joins, chosen[None, :], tokens)
        last = tl.full([BLOCK_P], -1, tl.int32)
    stays = place % 2 == 0
    copied = load_tile(base, 2 * pair, token_stride_n, c, stays, channels)
    size_base = size_ptr + batch * tokens
    even_size = joined_size(size_base, 2 * pair, stays, HAS_SIZE)
    size = joined_size(size_base, 2 * pair + 1, odd, HAS_SIZE)
    total_size = tl.where(odd, size, 1.0)
    # Without the row's own, and nothing stored before: no thread waits for its first rows while it could ask for others.
    total = tl.zeros([BLOCK_P, BLOCK_C], tl.float32)
    order_base = order_ptr + batch * removed
    # Two at a time: both are asked for before the first is waited for.
    for step in range(0, tl.max(count, axis=0), 2):
        if PLANNED:
            source_0, here_0 = planned_source(order_base, first, count, step)
            source_1, here_1 = planned_source(order_base, first, count, step + 1)
        else:
            source_0, here_0 = next_source(candidate, last, tokens)
            source_1, here_1 = next_source(candidate, source_0, tokens)
            last = source_1
        row_0 = load_tile(base, 2 * source_0, token_stride_n, c, here_0, channels)
        row_1 = load_tile(base, 2 * source_1, token_stride_n, c, here_1, channels)
        size_0 = joined_size(size_base, 2 * source_0, here_0, HAS_SIZE)
        size_1 = joined_size(size_base, 2 * source_1, here_1, HAS_SIZE)
        total = add_weighted(total, row_0, size_0, HAS_SIZE)
        total = add_weighted(total, row_1, size_1, HAS_SIZE)
        total_size = total_size + size_0 + size_1
    # A token that nothing joined keeps its bits: no multiplication and division by its own size.
    own = own.to(tl.float32)
    mean = tl.where(count[:, None] > 0, (own * size[:, None] + total) / total_size[:, None], own)
    merged_row = batch * (tokens - removed) + place // 2
    merged = merged_ptr + merged_row * channels
    tl.store(merged[:, None] + c[None, :], copied, mask=stays[:, None] & within)
    next_row = 1 - place % 2
    odd_merged = merged + next_row * channels
    tl.store(odd_merged[:, None] + c[None, :], mean.to(merged_ptr.dtype.element_ty), mask=odd[:, None] & within)
    if tl.program_id(0) == 0:
        tl.store(merged_size_ptr + merged_row, even_size, mask=stays)
        tl.store(merged_size_ptr + merged_row + next_row, total_size, mask=odd)
        if not PLANNED:
            tl.store(kept_ptr + merged_row, 2 * pair, mask=stays)
            tl.store(kept_ptr + merged_row + next_row, 2 * pair + 1, mask=odd)
            mine = (e < removed) & (chosen >= start) & (chosen < start + BLOCK_P)
            tl.store(source_ptr + batch * removed + e, 2 * chosen, mask=mine)
            tl.store(destination_ptr + batch * removed + e, partner, mask=mine)


def merge_blocks(channels: int, element_bytes: int, removed: int) -> dict[str, int | bool]:
    """Tile sizes and warps of `merge_kernel`: the widest rows that leave at most an eighth of the lanes without work.

    Every program can look through a short list itself, which saves a launch.
    """
    widths = (256, 128, 64)
    width = next((w for w in widths if 8 * ceil_div(channels, w) * w <= 9 * channels), widths[-1])
    planned = removed > SHORT_LIST
    return {
        "PLANNED": planned,
        "BLOCK_P": MERGE_BYTES // (width * element_bytes),
        "BLOCK_C": width,
        "BLOCK_R": 16 if planned else max(next_power_of_2(removed), 16),
        "num_warps": MERGE_WARPS,
    }


def merge_chosen(
    tokens: torch.Tensor,
    chosen: torch.Tensor,
    partner: torch.Tensor,
    size: torch.Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> Merge:
    """Merge the chosen sources into their partners.

    tokens : [B, N, C]; chosen : int32 [B, r], source numbers (token id / 2), ascending; partner : int32 [B, ceil(N/2)],
    odd token ids; size : float32 [B, N], or None for ones.
    """
    batch, count, channels = tokens.shape
    removed = chosen.shape[1]
    if choose(backend, tokens, chosen, partner) == "torch":
        return _merge_reference(tokens, 2 * chosen, partner.gather(1, chosen.long()), size)
    tokens, chosen, partner = rows_last(tokens), chosen.int().contiguous(), partner.int().contiguous()
    merged = tokens.new_empty((batch, count - removed, channels))
    merged_size = tokens.new_empty((batch, count - removed), dtype=torch.float32)
    blocks = merge_blocks(channels, tokens.element_size(), removed)
    if blocks["PLANNED"]:
        plan = plan_merge(chosen, partner, count)
    else:
        kept = torch.empty_like(merged_size, dtype=torch.int32)
        # The merge reads no plan; it writes what a plan would have written.
        plan = Plan(chosen, chosen, chosen, chosen, kept, torch.empty_like(chosen), torch.empty_like(chosen))
    merge_kernel[(ceil_div(channels, blocks["BLOCK_C"]), ceil_div(partner.shape[1], blocks["BLOCK_P"]), batch)](
        tokens,
        merged_size if size is None else size.float().contiguous(),
        chosen,
        partner,
        plan.order,
        plan.place,
        plan.first,
        plan.count,
        merged,
        merged_size,
        plan.kept,
        plan.source,
        plan.destination,
        tokens.stride(0),
        tokens.stride(1),
        count,
        channels,
        removed,
        HAS_SIZE=size is not None,
        **blocks,
    )
    return Merge(merged, merged_size, plan.kept, plan.source, plan.destination)


def bipartite_merge(
    tokens: torch.Tensor,
    metric: torch.Tensor,
    removed: int,
    *,
    size: torch.Tensor | None = None,
    protected: tuple[int, ...] = (),
    backend: Backend = "auto",
) -> Merge:
    """Merge the `removed` most similar even tokens into odd ones.

    Parameters
    ----------
    tokens : floating [B, N, C]; metric : floating [B, N, D], what similarity is measured on (the keys, in ToMe).
    removed : tokens to remove, at most the number of unprotected even tokens.
    size : float32 [B, N], how many tokens each stands for; None for ones.
    protected : token ids that neither leave nor receive (class token).

    Raises
    ------
    ValueError
        shapes do not fit, or more tokens are to be removed than may leave.
    """
    require(
        tokens.ndim == 3 and tokens.is_floating_point(),
        "tokens",
        (tuple(tokens.shape), tokens.dtype),
        "floating [B, N, C]",
    )
    require(
        metric.shape[:2] == tokens.shape[:2], "metric", tuple(metric.shape), f"{tuple(tokens.shape[:2])} and channels"
    )
    count = tokens.shape[1]
    free = sum(token not in protected for token in range(0, count, 2))
    receivers = sum(token not in protected for token in range(1, count, 2))
    require(0 <= removed <= (free if receivers else 0), "removed", removed, f"0 to {free if receivers else 0}")
    if size is not None:
        require(tuple(size.shape) == tuple(tokens.shape[:2]), "size", tuple(size.shape), str(tuple(tokens.shape[:2])))
    score, partner = best_partners(metric, protected, backend=backend)
    chosen = topk_select(score.float(), removed, backend=backend).indices
    return merge_chosen(tokens, chosen, partner, size, backend=backend)


def _merge_reference(
    tokens: torch.Tensor, source: torch.Tensor, destination: torch.Tensor, size: torch.Tensor | None
) -> Merge:
    batch, count, channels = tokens.shape
    inner = torch.float64 if tokens.dtype == torch.float64 else torch.float32
    weight = tokens.new_ones((batch, count), dtype=inner) if size is None else size.to(inner)
    heavy = tokens.to(inner) * weight[..., None]
    wide = source.long()[..., None].expand(-1, -1, channels)
    into = destination.long()[..., None].expand(-1, -1, channels)
    total = heavy.scatter_add(1, into, heavy.gather(1, wide))
    total_size = weight.scatter_add(1, destination.long(), weight.gather(1, source.long()))
    joined = torch.zeros((batch, count), dtype=torch.bool, device=tokens.device)
    joined = joined.scatter(1, destination.long(), True)
    # A token that nothing joined keeps its bits: no multiplication and division by its own size.
    mean = torch.where(joined[..., None], total / total_size[..., None], tokens.to(inner))
    stays = torch.ones((batch, count), dtype=torch.bool, device=tokens.device).scatter(1, source.long(), False)
    kept = stays.nonzero()[:, 1].view(batch, -1)
    merged = mean.gather(1, kept[..., None].expand(-1, -1, channels)).to(tokens.dtype)
    return Merge(merged, total_size.gather(1, kept).to(torch.float32), kept.to(torch.int32), source, destination)
