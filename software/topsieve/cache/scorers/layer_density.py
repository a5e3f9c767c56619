"""`LayerDensity`: H2O's score, and a budget for each layer from how evenly its attention lies, as D2O has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.cache.roles import CacheContext
from topsieve.cache.scorers.received_attention import ReceivedAttention

SMALLEST_SHARE = 0.01
SHARE = "share"


@dataclass(frozen=True)
class LayerDensity(ReceivedAttention):
    """Specification `methods-more`, D2O.

    After the prompt, with f the mean over the heads of the variance of the min-max-normalised column sums of a layer,
    layer l of L keeps the share clip(L x keep x softmax(-f) of l, 0.01, 1) of the prompt's tokens from then on. The first
    `whole_first` and last `whole_last` layers keep everything.

    Parameters
    ----------
    keep : share of the tokens, mean over the layers.
    whole_first, whole_last : layers that keep everything.
    """

    keep: float = 0.5
    whole_first: int = 2
    whole_last: int = 1

    def spread(self, contexts: Sequence[CacheContext]) -> None:
        """Write each layer's share into its memory; `contexts` are all layers of the prompt's pass, in order."""
        spreads = torch.stack([self._variance(context) for context in contexts])  # [L, R]
        layers = len(contexts)
        shares = (layers * self.keep * torch.softmax(-spreads, dim=0)).clamp(SMALLEST_SHARE, 1.0)
        for layer, (context, share) in enumerate(zip(contexts, shares, strict=True)):
            whole = layer < self.whole_first or layer >= layers - self.whole_last
            context.memory[SHARE] = torch.ones_like(share) if whole else share

    def _variance(self, context: CacheContext) -> Tensor:
        """float64 [R], the same for all heads of a sequence."""
        assert context.column_sum is not None
        sums = context.column_sum.to(torch.float64)  # [R, G, N]
        live = context.valid.unsqueeze(1)
        low = sums.masked_fill(~live, float("inf")).amin(-1, keepdim=True)
        high = sums.masked_fill(~live, float("-inf")).amax(-1, keepdim=True)
        even = torch.where(
            live & (high > low), (sums - low) / (high - low).clamp(min=torch.finfo(sums.dtype).tiny), 0.0
        )
        count = live.sum(-1, keepdim=True)
        mean = even.sum(-1, keepdim=True) / count
        variance = torch.where(live, (even - mean) ** 2, 0.0).sum(-1, keepdim=True) / (count - 1).clamp(min=1)
        heads = context.shape.kv_heads
        of_sequence = variance.squeeze(-1).unflatten(0, (-1, heads)).mean((1, 2))
        return of_sequence.repeat_interleave(heads)
