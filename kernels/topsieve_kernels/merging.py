"""(e) Bipartite soft matching and merging of tokens: match, choose and merge in three launches.

Even tokens are sources, odd tokens destinations (ToMe, arXiv 2210.09461, section 3):

    score[a, b] = cos(metric[a], metric[b]);   best[a] = the lowest b of the largest score
    the r sources with the largest best score (lowest a first among equals) join their best destination
    merged x[b] = sum of size x / sum of size over b and its sources;   size[b] = the sum of the sizes

Survivors keep their order. Every source has at most one edge, so "best partner, then the r best sources" is the exact
optimum of "r edges of largest total score with at most one per source". The score matrix never reaches memory: a program
holds a tile of sources and walks the destinations. Merging gives each surviving token one program that adds its sources
in ascending order: no atomics, bitwise reproducible. A token without direction (norm 0) has score 0 with every other.
"""

from dataclasses import dataclass

import torch

from topsieve_kernels.backend import Backend, ceil_div, choose, jit, next_power_of_2, require, tl
from topsieve_kernels.selection import topk_select

SMALLEST_SQUARE = 1e-30


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
def best_partner_kernel(
    metric_ptr,
    blocked_ptr,
    score_ptr,
    partner_ptr,
    metric_stride_b,
    metric_stride_n,
    tokens,
    channels,
    SMALLEST: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    sources = (tokens + 1) // 2
    destinations = tokens // 2
    a = tl.program_id(0) * BLOCK_A + tl.arange(0, BLOCK_A)
    base = metric_ptr + batch * metric_stride_b
    best = tl.full([BLOCK_A], float("-inf"), tl.float32)
    partner = tl.zeros([BLOCK_A], tl.int32)
    for start in range(0, destinations, BLOCK_B):
        b = start + tl.arange(0, BLOCK_B)
        dot = tl.zeros([BLOCK_A, BLOCK_B], tl.float32)
        square_a = tl.zeros([BLOCK_A], tl.float32)
        square_b = tl.zeros([BLOCK_B], tl.float32)
        for first in range(0, channels, BLOCK_C):
            c = first + tl.arange(0, BLOCK_C)
            source = tl.load(
                base + (2 * a[:, None]) * metric_stride_n + c[None, :],
                mask=(a[:, None] < sources) & (c[None, :] < channels),
                other=0.0,
            )
            destination = tl.load(
                base + (2 * b[:, None] + 1) * metric_stride_n + c[None, :],
                mask=(b[:, None] < destinations) & (c[None, :] < channels),
                other=0.0,
            )
            dot += tl.dot(source, tl.trans(destination), input_precision="tf32x3")
            source = source.to(tl.float32)
            destination = destination.to(tl.float32)
            square_a += tl.sum(source * source, axis=1)
            square_b += tl.sum(destination * destination, axis=1)
        inverse_a = tl.rsqrt(tl.maximum(square_a, SMALLEST))
        inverse_b = tl.rsqrt(tl.maximum(square_b, SMALLEST))
        score = dot * inverse_a[:, None] * inverse_b[None, :]
        open_b = tl.load(blocked_ptr + 2 * b + 1, mask=b < destinations, other=1) == 0
        score = tl.where(open_b[None, :], score, float("-inf"))
        tile_best = tl.max(score, axis=1)
        is_best = (score == tile_best[:, None]) & open_b[None, :]
        tile_partner = tl.min(tl.where(is_best, b[None, :], destinations), axis=1)
        # Strictly larger: an equal score in a later tile has a higher index.
        better = tile_best > best
        partner = tl.where(better, tile_partner, partner)
        best = tl.where(better, tile_best, best)
    open_a = tl.load(blocked_ptr + 2 * a, mask=a < sources, other=1) == 0
    tl.store(score_ptr + batch * sources + a, tl.where(open_a, best, float("-inf")), mask=a < sources)
    tl.store(partner_ptr + batch * sources + a, 2 * partner + 1, mask=a < sources)


@jit
def merge_rows_kernel(
    token_ptr,
    size_ptr,
    chosen_ptr,
    partner_ptr,
    merged_ptr,
    merged_size_ptr,
    kept_ptr,
    token_stride_b,
    token_stride_n,
    tokens,
    channels,
    removed,
    HAS_SIZE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    token = tl.program_id(0)
    sources = (tokens + 1) // 2
    e = tl.arange(0, BLOCK_R)
    chosen = tl.load(chosen_ptr + batch * removed + e, mask=e < removed, other=0)
    source = tl.where(e < removed, 2 * chosen, 2 * tokens)
    if tl.max((source == token).to(tl.int32), axis=0) == 0:
        row = batch * (tokens - removed) + token - tl.sum((source < token).to(tl.int32), axis=0)
        partner = tl.load(partner_ptr + batch * sources + chosen, mask=e < removed, other=-1)
        joins = partner == token
        count = tl.sum(joins.to(tl.int32), axis=0)
        order = tl.cumsum(joins.to(tl.int32), axis=0)
        size = 1.0
        if HAS_SIZE:
            size = tl.load(size_ptr + batch * tokens + token)
        total_size = size
        for j in range(count):
            other = tl.sum(tl.where(joins & (order == j + 1), source, 0), axis=0)
            if HAS_SIZE:
                total_size += tl.load(size_ptr + batch * tokens + other)
            else:
                total_size += 1.0
        tl.store(kept_ptr + row, token)
        tl.store(merged_size_ptr + row, total_size)
        base = token_ptr + batch * token_stride_b
        for first in range(0, channels, BLOCK_C):
            c = first + tl.arange(0, BLOCK_C)
            own = tl.load(base + token * token_stride_n + c, mask=c < channels, other=0.0).to(tl.float32)
            if count > 0:
                total = own * size
                for j in range(count):
                    other = tl.sum(tl.where(joins & (order == j + 1), source, 0), axis=0)
                    added = tl.load(base + other * token_stride_n + c, mask=c < channels, other=0.0).to(tl.float32)
                    if HAS_SIZE:
                        added = added * tl.load(size_ptr + batch * tokens + other)
                    total += added
                own = total / total_size
            tl.store(merged_ptr + row * channels + c, own.to(merged_ptr.dtype.element_ty), mask=c < channels)


MERGE_WARPS = 4


def partner_blocks(dtype: torch.dtype) -> dict[str, int]:
    """Tile sizes, warps and stages that compile without spills for sm_80 and sm_90."""
    if dtype == torch.float32:
        return {"BLOCK_A": 32, "BLOCK_B": 32, "num_warps": 8, "num_stages": 2}
    # On sm_80 the conversion of bfloat16 products needs a few registers more than four warps have.
    return {"BLOCK_A": 64, "BLOCK_B": 64, "num_warps": 8 if dtype is torch.bfloat16 else 4, "num_stages": 2}


def best_partners(
    metric: torch.Tensor, protected: tuple[int, ...] = (), *, backend: Backend = "auto"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Best score float32 [B, ceil(N/2)] and partner's token id int32 of every even token of `metric` [B, N, D].

    A protected source has score minus infinity; a protected destination is nobody's partner.
    """
    require(metric.ndim == 3 and metric.shape[1] > 1, "metric", tuple(metric.shape), "[B, N, D], N at least 2")
    batch, tokens, channels = metric.shape
    require(
        all(0 <= token < tokens for token in protected), "protected", protected, f"token ids from 0 to {tokens - 1}"
    )
    if choose(backend, metric) == "torch":
        return best_partners_reference(metric, protected)
    metric = metric if metric.stride(-1) == 1 else metric.contiguous()
    sources = (tokens + 1) // 2
    blocks = partner_blocks(metric.dtype)
    score = torch.empty((batch, sources), dtype=torch.float32, device=metric.device)
    partner = torch.empty((batch, sources), dtype=torch.int32, device=metric.device)
    best_partner_kernel[(ceil_div(sources, blocks["BLOCK_A"]), batch)](
        metric,
        _blocked(protected, tokens, metric.device).byte(),
        score,
        partner,
        metric.stride(0),
        metric.stride(1),
        tokens,
        channels,
        SMALLEST=SMALLEST_SQUARE,
        BLOCK_C=min(max(next_power_of_2(channels), 16), 64),
        **blocks,
    )
    return score, partner


def best_partners_reference(metric: torch.Tensor, protected: tuple[int, ...] = ()) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition, in float64 for float64 operands and float32 otherwise."""
    inner = torch.float64 if metric.dtype == torch.float64 else torch.float32
    x = metric.to(inner)
    x = x * x.square().sum(-1, keepdim=True).clamp_min(SMALLEST_SQUARE).rsqrt()
    blocked = _blocked(protected, metric.shape[1], metric.device)
    score = x[:, 0::2] @ x[:, 1::2].transpose(1, 2)
    score = score.masked_fill(blocked[1::2], -torch.inf)
    best = score.amax(-1)
    here = torch.arange(score.shape[2], device=metric.device)
    partner = torch.where(score == best[..., None], here, score.shape[2]).amin(-1)
    return best.masked_fill(blocked[0::2], -torch.inf), (2 * partner + 1).to(torch.int32)


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
    source = 2 * chosen
    destination = partner.gather(1, chosen.long())
    if choose(backend, tokens, chosen, partner) == "torch":
        merged, merged_size, kept = _merge_reference(tokens, source, destination, size)
        return Merge(merged, merged_size, kept, source, destination)
    tokens = tokens if tokens.stride(-1) == 1 else tokens.contiguous()
    merged = torch.empty((batch, count - removed, channels), dtype=tokens.dtype, device=tokens.device)
    merged_size = torch.empty((batch, count - removed), dtype=torch.float32, device=tokens.device)
    kept = torch.empty((batch, count - removed), dtype=torch.int32, device=tokens.device)
    merge_rows_kernel[(count, batch)](
        tokens,
        merged_size if size is None else size.float().contiguous(),
        chosen.contiguous(),
        partner.contiguous(),
        merged,
        merged_size,
        kept,
        tokens.stride(0),
        tokens.stride(1),
        count,
        channels,
        removed,
        HAS_SIZE=size is not None,
        BLOCK_R=max(next_power_of_2(removed), 16),
        BLOCK_C=min(next_power_of_2(channels), 1024),
        num_warps=MERGE_WARPS,
    )
    return Merge(merged, merged_size, kept, source, destination)


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
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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
    return merged, total_size.gather(1, kept).to(torch.float32), kept.to(torch.int32)


def _blocked(protected: tuple[int, ...], tokens: int, device: torch.device) -> torch.Tensor:
    # Filled on the device, number by number: a copy from the host would stall it.
    blocked = torch.zeros(tokens, dtype=torch.bool, device=device)
    for token in protected:
        blocked[token] = True
    return blocked
