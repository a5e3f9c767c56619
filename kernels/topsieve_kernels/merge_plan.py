"""The plan of a merge: where every survivor goes, and which sources each destination gets, ascending.

Programs own tiles of pairs (tokens 2a and 2a + 1). Each walks the list of the removed, counts what lies before its tile,
takes out the entries that join it, which are few, and sorts them by destination: the work grows with tiles times entries,
not with entries squared. The list is ascending, so the sources that leave a tile are neighbours in it. Every number has
one program that writes it: no atomics.
"""

from dataclasses import dataclass

import torch

from topsieve_kernels.backend import ceil_div, jit, next_power_of_2, tl

PLAN_PAIRS = 32
PLAN_JOINED = 32
PLAN_LIST = 1024
PLAN_WARPS = 4


@dataclass(frozen=True)
class Plan:
    """int32, S = ceil(N / 2): order [B, r] source numbers by destination, then ascending; first and count [B, S], where
    the sources of token 2a + 1 stand in `order`; place [B, S], twice the row of token 2a plus 1 if it leaves (then its
    neighbour takes that row); kept [B, N - r], source and destination [B, r] token ids as in `Merge`."""

    order: torch.Tensor
    first: torch.Tensor
    count: torch.Tensor
    place: torch.Tensor
    kept: torch.Tensor
    source: torch.Tensor
    destination: torch.Tensor


@jit
def plan_kernel(
    chosen_ptr,
    partner_ptr,
    joined_source_ptr,
    joined_pair_ptr,
    order_ptr,
    place_ptr,
    first_ptr,
    count_ptr,
    kept_ptr,
    source_ptr,
    destination_ptr,
    tokens,
    removed,
    BLOCK_P: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_J: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    sources = (tokens + 1) // 2
    start = tl.program_id(0) * BLOCK_P
    pair = start + tl.arange(0, BLOCK_P)
    chosen_base = chosen_ptr + batch * removed
    partner_base = partner_ptr + batch * sources
    # Beyond the list stand numbers beyond every tile that has a pair.
    below = tl.zeros([BLOCK_R], tl.int32)
    joined_below = tl.zeros([BLOCK_R], tl.int32)
    for first in range(0, removed, BLOCK_R):
        e = first + tl.arange(0, BLOCK_R)
        chosen = tl.load(chosen_base + e, mask=e < removed, other=tokens)
        joined = tl.load(partner_base + chosen, mask=e < removed, other=2 * tokens) // 2
        below += (chosen < start).to(tl.int32)
        joined_below += (joined < start).to(tl.int32)
    leaving_first = tl.sum(below, axis=0)
    joined_first = tl.sum(joined_below, axis=0)

    joined_end = joined_first
    for first in range(0, removed, BLOCK_R):
        e = first + tl.arange(0, BLOCK_R)
        chosen = tl.load(chosen_base + e, mask=e < removed, other=tokens)
        joined = tl.load(partner_base + chosen, mask=e < removed, other=2 * tokens) // 2
        mine = (e < removed) & (joined >= start) & (joined < start + BLOCK_P)
        slot = batch * removed + joined_end + tl.cumsum(mine.to(tl.int32), axis=0) - 1
        tl.store(joined_source_ptr + slot, chosen, mask=mine)
        tl.store(joined_pair_ptr + slot, joined, mask=mine)
        joined_end += tl.sum(mine.to(tl.int32), axis=0)
    # What other threads of this program stored is read below.
    tl.debug_barrier()

    e = leaving_first + tl.arange(0, BLOCK_P)
    chosen = tl.load(chosen_base + e, mask=e < removed, other=tokens)
    mine = (e < removed) & (chosen < start + BLOCK_P)
    tl.store(source_ptr + batch * removed + e, 2 * chosen, mask=mine)
    tl.store(destination_ptr + batch * removed + e, tl.load(partner_base + chosen, mask=mine, other=0), mask=mine)
    leaves = tl.sum((chosen[:, None] == pair[None, :]).to(tl.int32), axis=0)
    row = 2 * pair - leaving_first - tl.sum((chosen[:, None] < pair[None, :]).to(tl.int32), axis=0)
    kept_base = kept_ptr + batch * (tokens - removed)
    tl.store(kept_base + row, 2 * pair, mask=(pair < sources) & (leaves == 0))
    tl.store(kept_base + row + 1 - leaves, 2 * pair + 1, mask=2 * pair + 1 < tokens)
    tl.store(place_ptr + batch * sources + pair, 2 * row + leaves, mask=pair < sources)

    count = tl.zeros([BLOCK_P], tl.int32)
    for first in range(joined_first, joined_end, BLOCK_J):
        j = first + tl.arange(0, BLOCK_J)
        joined = tl.load(joined_pair_ptr + batch * removed + j, mask=j < joined_end, other=-1)
        count += tl.sum((joined[:, None] == pair[None, :]).to(tl.int32), axis=0)
    free = joined_first + tl.cumsum(count, axis=0) - count
    tl.store(first_ptr + batch * sources + pair, free, mask=pair < sources)
    tl.store(count_ptr + batch * sources + pair, count, mask=pair < sources)

    here = tl.arange(0, BLOCK_J)
    for first in range(joined_first, joined_end, BLOCK_J):
        j = first + here
        joined = tl.load(joined_pair_ptr + batch * removed + j, mask=j < joined_end, other=-1)
        source = tl.load(joined_source_ptr + batch * removed + j, mask=j < joined_end, other=0)
        earlier = (joined[None, :] == joined[:, None]) & (here[None, :] < here[:, None])
        same = (joined[:, None] == pair[None, :]).to(tl.int32)
        slot = tl.sum(same * free[None, :], axis=1) + tl.sum(earlier.to(tl.int32), axis=1)
        tl.store(order_ptr + batch * removed + slot, source, mask=j < joined_end)
        free += tl.sum(same, axis=0)


def plan_blocks(removed: int) -> dict[str, int]:
    """Tile sizes and warps of `plan_kernel`."""
    listed = min(max(next_power_of_2(removed), 128), PLAN_LIST)
    return {"BLOCK_P": PLAN_PAIRS, "BLOCK_R": listed, "BLOCK_J": PLAN_JOINED, "num_warps": PLAN_WARPS}


def plan_merge(chosen: torch.Tensor, partner: torch.Tensor, tokens: int) -> Plan:
    """Launch. chosen : int32 [B, r], source numbers, ascending; partner : int32 [B, ceil(N/2)], odd token ids; both
    contiguous; tokens : N."""
    batch, removed = chosen.shape
    sources = partner.shape[1]

    def integers(columns: int) -> torch.Tensor:
        return torch.empty((batch, columns), dtype=torch.int32, device=chosen.device)

    plan = Plan(
        order=integers(removed),
        first=integers(sources),
        count=integers(sources),
        place=integers(sources),
        kept=integers(tokens - removed),
        source=integers(removed),
        destination=integers(removed),
    )
    plan_kernel[(ceil_div(sources, PLAN_PAIRS), batch)](
        chosen,
        partner,
        integers(removed),
        integers(removed),
        plan.order,
        plan.place,
        plan.first,
        plan.count,
        plan.kept,
        plan.source,
        plan.destination,
        tokens,
        removed,
        **plan_blocks(removed),
    )
    return plan
