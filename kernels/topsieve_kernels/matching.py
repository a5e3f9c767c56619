"""Best partners: for every even token the odd one most like it, without the scores ever reaching memory.

    score[a, b] = cos(metric[2a], metric[2b + 1]);   best[a] = max over b;   partner[a] = the lowest b of the largest score

A program keeps a tile of sources on chip and walks the destinations; the loads of the next tile run under the matrix
product of this one. Every position of the tile keeps its own best score and the tile it came from, so rows are reduced
once, at the end. A positive factor moves no maximum: the source's own norm is divided out last. A destination that may
not receive has NaN for an inverse norm, which is larger than nothing. A token without direction (norm 0) has score 0
with every other.
"""

import torch

from topsieve_kernels.backend import (
    Backend,
    capability,
    ceil_div,
    choose,
    jit,
    multiprocessors,
    next_power_of_2,
    require,
    rows_last,
    tl,
)

SMALLEST_SQUARE = 1e-30
NORM_ELEMENTS = 4096
NORM_WARPS = 4


@jit
def inverse_norm(square, closed, SMALLEST: tl.constexpr):
    """1 / sqrt(square), NaN where the token is closed."""
    return tl.where(closed, float("nan"), tl.rsqrt(tl.maximum(square, SMALLEST)))


@jit
def inverse_norm_kernel(
    metric_ptr,
    blocked_ptr,
    inverse_ptr,
    metric_stride_b,
    metric_stride_n,
    tokens,
    channels,
    padded,
    SMALLEST: tl.constexpr,
    HAS_PROTECTED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    odd = tl.program_id(2)
    pair = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    token = 2 * pair + odd
    here = token < tokens
    row = metric_ptr + batch * metric_stride_b + token.to(tl.int64) * metric_stride_n
    square = tl.zeros([BLOCK_T], tl.float32)
    for first in range(0, channels, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)
        x = tl.load(row[:, None] + c[None, :], mask=here[:, None] & (c[None, :] < channels), other=0.0)
        square += square_sum(x)
    closed = token >= tokens
    if HAS_PROTECTED:
        closed = closed | (tl.load(blocked_ptr + token, mask=here, other=1) != 0)
    tl.store(
        inverse_ptr + (2 * batch + odd) * padded + pair, inverse_norm(square, closed, SMALLEST), mask=pair < padded
    )


@jit
def square_sum(x):
    """Sum of squares of each row, in float32."""
    wide = x.to(tl.float32)
    return tl.sum(wide * wide, axis=1)


@jit
def load_channels(row_ptr, first, channels, EVEN: tl.constexpr, WIDTH: tl.constexpr):
    """WIDTH channels from `first` on of every row, zeros beyond the last; EVEN when there are none beyond."""
    c = first + tl.arange(0, WIDTH)
    if EVEN:
        return tl.load(row_ptr[:, None] + c[None, :])
    return tl.load(row_ptr[:, None] + c[None, :], mask=c[None, :] < channels, other=0.0)


@jit
def keep_better(score, tile, best, best_tile):
    """The larger score of every position and the tile it came from; an equal score in a later tile has a higher index."""
    better = score > best
    return tl.where(better, score, best), tl.where(better, tile, best_tile)


@jit
def best_partner_kernel(
    metric_ptr,
    blocked_ptr,
    inverse_ptr,
    score_ptr,
    partner_ptr,
    metric_stride_b,
    metric_stride_n,
    tokens,
    channels,
    padded,
    SMALLEST: tl.constexpr,
    HAS_PROTECTED: tl.constexpr,
    HAS_NORMS: tl.constexpr,
    RESIDENT: tl.constexpr,
    EVEN: tl.constexpr,
    WIDTH: tl.constexpr,
    REST: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    batch = tl.program_id(1).to(tl.int64)
    sources = (tokens + 1) // 2
    destinations = tokens // 2
    a = tl.program_id(0) * BLOCK_A + tl.arange(0, BLOCK_A)
    base = metric_ptr + batch * metric_stride_b
    # Rows beyond the last repeat it, which is cheaper than a mask, and are left out by their norm.
    row_a = base + (2 * tl.minimum(a, sources - 1)).to(tl.int64) * metric_stride_n
    best = tl.full([BLOCK_A, BLOCK_B], float("-inf"), tl.float32)
    best_tile = tl.zeros([BLOCK_A, BLOCK_B], tl.int32)
    score = best
    if RESIDENT:
        source = load_channels(row_a, 0, channels, EVEN, WIDTH)
        if REST > 0:
            source_rest = load_channels(row_a, WIDTH, channels, EVEN, REST)
    tiles = (destinations + BLOCK_B - 1) // BLOCK_B
    for tile in range(tiles):
        b = tile * BLOCK_B + tl.arange(0, BLOCK_B)
        row_b = base + (2 * tl.minimum(b, destinations - 1) + 1).to(tl.int64) * metric_stride_n
        if RESIDENT:
            destination = load_channels(row_b, 0, channels, EVEN, WIDTH)
            if REST > 0:
                destination_rest = load_channels(row_b, WIDTH, channels, EVEN, REST)
                dot = tl.dot(source_rest, tl.trans(destination_rest), input_precision="tf32x3")
                dot = tl.dot(source, tl.trans(destination), dot, input_precision="tf32x3")
            else:
                dot = tl.dot(source, tl.trans(destination), input_precision="tf32x3")
        else:
            dot = tl.zeros([BLOCK_A, BLOCK_B], tl.float32)
            for first in range(0, channels, WIDTH):
                source = load_channels(row_a, first, channels, EVEN, WIDTH)
                destination = load_channels(row_b, first, channels, EVEN, WIDTH)
                dot = tl.dot(source, tl.trans(destination), dot, input_precision="tf32x3")
        if HAS_NORMS:
            inverse_b = tl.load(inverse_ptr + (2 * batch + 1) * padded + b)
        else:
            square = square_sum(destination)
            if REST > 0:
                square += square_sum(destination_rest)
            closed = b >= destinations
            if HAS_PROTECTED:
                closed = tl.load(blocked_ptr + 2 * b + 1, mask=b < destinations, other=1) != 0
            inverse_b = inverse_norm(square, closed, SMALLEST)
        # The tile before is looked through while the product of this one runs.
        best, best_tile = keep_better(score, tile - 1, best, best_tile)
        score = dot * inverse_b[None, :]
    best, best_tile = keep_better(score, tiles - 1, best, best_tile)
    largest = tl.max(best, axis=1)
    b = best_tile * BLOCK_B + tl.arange(0, BLOCK_B)[None, :]
    partner = tl.min(tl.where(best == largest[:, None], b, tokens), axis=1)
    if HAS_NORMS:
        inverse_a = tl.load(inverse_ptr + 2 * batch * padded + a)
    else:
        square = square_sum(source)
        if REST > 0:
            square += square_sum(source_rest)
        closed = a >= sources
        if HAS_PROTECTED:
            closed = tl.load(blocked_ptr + 2 * a, mask=a < sources, other=1) != 0
        inverse_a = inverse_norm(square, closed, SMALLEST)
    largest = tl.where(inverse_a == inverse_a, largest * inverse_a, float("-inf"))
    tl.store(score_ptr + batch * sources + a, largest, mask=a < sources)
    tl.store(partner_ptr + batch * sources + a, 2 * partner + 1, mask=a < sources)


PADDED_PAIRS = 128
RESIDENT_CHANNELS = {128: 320, 64: 384}
CHUNK_CHANNELS = 64


def channel_blocks(channels: int) -> tuple[int, int]:
    """Two powers of two (the second may be 0; else 16 or more) that together hold the channels, with little to spare."""
    whole = next_power_of_2(max(channels, 16))
    half = whole // 2
    rest = max(next_power_of_2(channels - half), 16)
    return (half, rest) if half >= 16 and half < channels and rest < half else (whole, 0)


def shared_memory_bytes(capability: int) -> int:
    """Shared memory that one program may use."""
    return 1024 * (163 if capability in (80, 87) else 227 if 90 <= capability < 120 else 99)


def partner_blocks(
    dtype: torch.dtype, batch: int, tokens: int, channels: int, multiprocessors: int, capability: int
) -> dict[str, int | bool]:
    """Tile sizes, warps and stages that compile without spills for sm_80 and sm_90.

    Where the channels of a tile of sources fit beside those of the destinations on their way, they stay (`RESIDENT`):
    loading them again for every tile of destinations would take longer from the second-level cache than the product.
    One tile of destinations brings its norms along, which saves a launch.
    """
    sources = ceil_div(tokens, 2)
    if dtype == torch.float32:
        return _blocks(64, 32, 8, 2, norms=True, resident=False, width=32, channels=channels)
    width, rest = channel_blocks(channels)
    if sources <= 128 and width + rest <= 128:
        few = sources <= 64
        return _blocks(
            64,
            64 if few else 128,
            4 if few else 8,
            1,
            norms=False,
            resident=True,
            width=width,
            rest=rest,
            channels=channels,
        )
    # Large tiles read the destinations less often; small ones leave fewer multiprocessors idle.
    large = batch * ceil_div(sources, 128) >= 3 * multiprocessors // 4
    for rows in (128, 64) if large else (64,):
        for stages in (3, 2):
            # Hopper's product reads its operands from shared memory while the next load is on its way.
            buffers = stages if capability >= 90 else stages - 1
            needed = 2 * (width + rest) * (rows + 64 * buffers)
            if width + rest <= RESIDENT_CHANNELS[rows] and needed <= shared_memory_bytes(capability):
                return _blocks(
                    rows, 64, rows // 16, stages, norms=True, resident=True, width=width, rest=rest, channels=channels
                )
    return _blocks(128, 64, 8, 3, norms=True, resident=False, width=CHUNK_CHANNELS, channels=channels)


def _blocks(
    rows: int,
    columns: int,
    warps: int,
    stages: int,
    *,
    norms: bool,
    resident: bool,
    width: int,
    channels: int,
    rest: int = 0,
) -> dict[str, int | bool]:
    return {
        "HAS_NORMS": norms,
        "RESIDENT": resident,
        "EVEN": channels == width + rest if resident else channels % width == 0,
        "WIDTH": width,
        "REST": rest,
        "BLOCK_A": rows,
        "BLOCK_B": columns,
        "num_warps": warps,
        "num_stages": stages,
    }


def best_partners(
    metric: torch.Tensor, protected: tuple[int, ...] = (), *, backend: Backend = "auto"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Best score float32 [B, ceil(N/2)] and partner's token id int32 of every even token of `metric` [B, N, D].

    A protected source has score minus infinity; a protected destination is nobody's partner.

    Raises
    ------
    ValueError
        shape or a protected token is not allowed.
    """
    require(metric.ndim == 3 and metric.shape[1] > 1, "metric", tuple(metric.shape), "[B, N, D], N at least 2")
    batch, tokens, channels = metric.shape
    require(
        all(0 <= token < tokens for token in protected), "protected", protected, f"token ids from 0 to {tokens - 1}"
    )
    if choose(backend, metric) == "torch":
        return best_partners_reference(metric, protected)
    metric = rows_last(metric)
    sources = ceil_div(tokens, 2)
    padded = ceil_div(sources, PADDED_PAIRS) * PADDED_PAIRS
    blocks = partner_blocks(metric.dtype, batch, tokens, channels, multiprocessors(metric), capability(metric))
    score = torch.empty((batch, sources), dtype=torch.float32, device=metric.device)
    partner = torch.empty((batch, sources), dtype=torch.int32, device=metric.device)
    blocked = _blocked(protected, tokens, metric.device).view(torch.uint8) if protected else partner
    inverse = score
    common = {"SMALLEST": SMALLEST_SQUARE, "HAS_PROTECTED": bool(protected)}
    if blocks["HAS_NORMS"]:
        inverse = torch.empty((batch, 2, padded), dtype=torch.float32, device=metric.device)
        norm_blocks = inverse_norm_blocks(channels)
        inverse_norm_kernel[(ceil_div(padded, norm_blocks["BLOCK_T"]), batch, 2)](
            metric, blocked, inverse, *metric.stride()[:2], tokens, channels, padded, **common, **norm_blocks
        )
    best_partner_kernel[(ceil_div(sources, blocks["BLOCK_A"]), batch)](
        metric, blocked, inverse, score, partner, *metric.stride()[:2], tokens, channels, padded, **common, **blocks
    )
    return score, partner


def inverse_norm_blocks(channels: int) -> dict[str, int]:
    """Tile sizes and warps of `inverse_norm_kernel`: enough bytes on their way, few registers."""
    width = min(max(next_power_of_2(channels), 16), 1024)
    return {"BLOCK_T": min(NORM_ELEMENTS // width, PADDED_PAIRS), "BLOCK_C": width, "num_warps": NORM_WARPS}


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


def _blocked(protected: tuple[int, ...], tokens: int, device: torch.device) -> torch.Tensor:
    # Filled on the device, run by run: a copy from the host would stall it.
    blocked = torch.zeros(tokens, dtype=torch.bool, device=device)
    ordered = sorted(set(protected))
    starts = [token for token in ordered if token - 1 not in protected]
    ends = [token for token in ordered if token + 1 not in protected]
    for start, end in zip(starts, ends, strict=True):
        blocked[start : end + 1] = True
    return blocked
