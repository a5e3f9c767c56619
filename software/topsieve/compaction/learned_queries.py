"""FLASH's compaction: a few learned queries pool the image tokens for a draft model.

Specification `methods-vision`, section 10.1, in the form of the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor

from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import ProbabilityValue, QueryKey, Softmax


def pool_by_queries(queries: Tensor, hidden: Tensor) -> Tensor:
    """softmax(A H^T) H, without a scale: [B, C, D] of learned queries A [C, D] and image tokens H [B, N, D]."""
    return (queries @ hidden.transpose(1, 2)).softmax(-1) @ hidden


def draft_input(mixed: Tensor, hidden: Tensor, queries: Tensor, image: slice) -> tuple[Tensor, Tensor]:
    """What the draft model reads, [B, L - N + C, D], and the positions it reads it at, int64 [L - N + C], without a gap.

    Text before the image, the pooled image, text behind it, as in the paper; the published code overwrites the first image
    places and cuts as many tokens off the end.

    Parameters
    ----------
    mixed : float [B, L, D], the draft model's map of each token's embedding beside its hidden state.
    hidden : float [B, L, D], the target's last hidden states.
    queries : float [C, D], learned. image : the N columns of the image.
    """
    pooled = pool_by_queries(queries, hidden[:, image])
    joined = torch.cat([mixed[:, : image.start], pooled, mixed[:, image.stop :]], dim=1)
    return joined, torch.arange(joined.shape[1], device=joined.device)


def rearranged(predictions: Tensor, pad: float = 0.0) -> Tensor:
    """The semi-autoregressive head's [L, k, D] as [L k, D]: row i (L + 1) + j is offset i of place j, for j < L - i.

    Rows that no prediction falls on hold `pad`.
    """
    length, ahead, width = predictions.shape
    out = predictions.new_full((length * ahead, width), pad)
    for offset in range(ahead):
        for place in range(length - offset):
            row = offset * (length + 1) + place
            if row < len(out):
                out[row] = predictions[place, offset]
    return out


def pool_work(queries: int, tokens: int, width: int, layer: int = -1) -> tuple[Op, ...]:
    """One head as wide as the hidden states."""
    return (
        QueryKey(layer=layer, heads=1, kv_heads=1, queries=queries, keys=tokens, head_dim=width),
        Softmax(layer=layer, heads=1, rows=queries, cols=tokens),
        ProbabilityValue(layer=layer, heads=1, kv_heads=1, queries=queries, keys=tokens, kept=tokens, head_dim=width),
    )
