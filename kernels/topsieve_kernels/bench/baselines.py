"""The strongest public ways to each result, written against torch alone."""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from topsieve_kernels.attention_score_sum import score_sum

SDPA = {"sdpa_cudnn": SDPBackend.CUDNN_ATTENTION, "sdpa_flash": SDPBackend.FLASH_ATTENTION}


def sdpa(name: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool) -> torch.Tensor:
    """Attention alone, forced to one vendor: the price of no importance. Causal masks are aligned bottom right."""
    rows, keys = query.shape[2], key.shape[2]
    square = rows == keys
    # torch's own flag aligns a mask that is not square at the top left.
    mask = causal_lower_right(rows, keys) if causal and not square else None
    with sdpa_kernel(SDPA[name]):
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=causal and square, enable_gqa=query.shape[1] != key.shape[1]
        )


def eager_importance(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and column sums with all probabilities in memory, as models do under `attn_implementation="eager"`."""
    batch, heads, rows, head_dim = query.shape
    key_heads, keys = key.shape[1], key.shape[2]
    group = heads // key_heads
    key, value = (x.repeat_interleave(group, 1) for x in (key, value))
    score = query @ key.mT / math.sqrt(head_dim)
    if causal:
        allowed = torch.ones(rows, keys, dtype=torch.bool, device=query.device).tril(keys - rows)
        score = score.masked_fill(~allowed, -math.inf)
    probability = score.softmax(-1, dtype=torch.float32)
    columns = probability.sum(2).view(batch, key_heads, group, keys).sum(2)
    return probability.to(query.dtype) @ value, columns


def small_tile_column_sum(
    query: torch.Tensor, key: torch.Tensor, log_sum_exp: torch.Tensor, causal: bool
) -> torch.Tensor:
    """Our second pass at the tiles of the published column-sum kernel (32 by 32, four warps)."""
    blocks = {"BLOCK_M": 32, "BLOCK_N": 32, "num_warps": 4, "num_stages": 2}
    scale = 1 / math.sqrt(query.shape[3])
    return score_sum(query, key, log_sum_exp, scale=scale, causal=causal, blocks=blocks)[0]


@cache
def _compiled_flex() -> Callable[..., torch.Tensor]:
    return torch.compile(flex_attention, dynamic=False)


def flex_column_sum(
    query: torch.Tensor, key: torch.Tensor, log_sum_exp: torch.Tensor, causal: bool
) -> Callable[[], torch.Tensor]:
    """Column sums without a kernel of one's own: with keys as queries and every score less its row's log-sum-exp, the
    log-sum-exp of the transposed attention is the logarithm of the column sum. Returns the call; masks are made here."""
    batch, heads, rows, head_dim = query.shape
    key_heads, keys = key.shape[1], key.shape[2]
    group = heads // key_heads
    widened = key.repeat_interleave(group, 1)
    # The transposed attention needs some value; a narrow one costs least.
    narrow = query[..., :16].contiguous()

    def less_lse(score, b, h, _, row):  # type: ignore[no-untyped-def]
        return score - log_sum_exp[b, h, row]

    mask = None
    if causal:

        def transposed(_b, _h, column, row):  # type: ignore[no-untyped-def]
            return column <= row + (keys - rows)

        mask = create_block_mask(transposed, None, None, keys, rows, device=query.device.type)
    flex = flex_attention
    if query.is_cuda:
        # Every shape compiles anew, and after a few of them the compiler would give up and run the slow way instead.
        torch._dynamo.reset()
        flex = _compiled_flex()

    def call() -> torch.Tensor:
        _, lse = flex(
            widened, query, narrow, score_mod=less_lse, block_mask=mask, scale=1 / math.sqrt(head_dim), return_lse=True
        )
        return lse.exp().view(batch, key_heads, group, keys).sum(2)

    return call


def merge_by_five_operations(tokens: torch.Tensor, metric: torch.Tensor, removed: int) -> torch.Tensor:
    """Bipartite soft merging as published: normalise and multiply, row maximum, sort, gather, scatter; sums [B, N - r, C]
    weighted by size, unmerged sources first."""
    channels = tokens.shape[2]
    metric = functional.normalize(metric, dim=-1)
    best, partner = (metric[:, 0::2] @ metric[:, 1::2].mT).max(-1)
    order = best.argsort(dim=-1, descending=True)
    stay, leave = order[:, removed:], order[:, :removed]
    into = partner.gather(1, leave)
    source, destination = tokens[:, 0::2], tokens[:, 1::2]

    def wide(index: torch.Tensor) -> torch.Tensor:
        return index[..., None].expand(-1, -1, channels)

    moved = source.gather(1, wide(leave))
    total = destination.scatter_add(1, wide(into), moved)
    size = torch.ones_like(destination[..., :1]).scatter_add(1, into[..., None], torch.ones_like(moved[..., :1]))
    return torch.cat((source.gather(1, wide(stay)), total / size), 1)


@cache
def compiled_merge(on_gpu: bool) -> Callable[..., torch.Tensor]:
    """`merge_by_five_operations` under `torch.compile`; on a CPU as it is, since only its result is of interest there."""
    return torch.compile(merge_by_five_operations, dynamic=False) if on_gpu else merge_by_five_operations
