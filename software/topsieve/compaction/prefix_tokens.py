"""One-dimensional image tokens whose prefixes are pictures too: FlexTok's scalars and masks, ReToK's queries.

Specification `methods-vision`, sections 14b and 14c. Keeping a prefix costs no selection at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

FLEXTOK_LEVELS = (8, 8, 8, 5, 5, 5)


def finite_scalars(latents: Tensor, levels: Sequence[int] = FLEXTOK_LEVELS) -> tuple[Tensor, Tensor]:
    """FlexTok's quantiser: codes in [-1, 1], float32 [..., d], and the index of each token, int64 [...].

    Parameters
    ----------
    latents : float [..., d], d the number of `levels`.
    """
    count = torch.tensor(levels, device=latents.device)
    half = (count - 1) * (1 + 1e-3) / 2
    offset = torch.where(count % 2 == 0, 0.5, 0.0)
    bounded = torch.tanh(latents.float() + torch.atanh(offset / half)) * half - offset
    digit = bounded.round()
    basis = torch.cumprod(torch.tensor([1, *levels[:-1]], device=latents.device), 0)
    index = ((digit + count // 2).long() * basis).sum(-1)
    return digit / (count // 2), index


def scalars_of(index: Tensor, levels: Sequence[int] = FLEXTOK_LEVELS) -> Tensor:
    """The codes, float32 [..., d], that `finite_scalars` gave the tokens `index` [...]."""
    count = torch.tensor(levels, device=index.device)
    basis = torch.cumprod(torch.tensor([1, *levels[:-1]], device=index.device), 0)
    digit = index.unsqueeze(-1) // basis % count
    return (digit - count // 2) / (count // 2)


def keep_prefix(tokens: Tensor, kept: Tensor, mask: Tensor) -> Tensor:
    """`tokens` [B, N, C] with those from `kept` (int64 [B]) on replaced by the learned vector `mask` [C]."""
    place = torch.arange(tokens.shape[1], device=tokens.device)
    return torch.where((place < kept.unsqueeze(-1)).unsqueeze(-1), tokens, mask)


def pooled_queries(features: Tensor, levels: int = 8) -> Tensor:
    """ReToK's first queries: averages of `features` [B, C, H, W] over 1, 1, 2, 4, ... 2^(levels - 1) blocks: [B, n, C].

    Blocks are halved over the width first, and read in raster order.
    """
    height, width = features.shape[2:]
    groups = []
    for group in range(levels + 1):
        level = max(group - 1, 0)
        wide, high = 2 ** ((level + 1) // 2), 2 ** (level // 2)
        pooled = avg_pool2d(features, (height // high, width // wide))
        groups.append(pooled.flatten(2).transpose(1, 2))
    return torch.cat(groups, dim=1)
