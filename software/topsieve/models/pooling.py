"""From the hidden states of a reduced model to one vector a sequence."""

from __future__ import annotations

from torch import Tensor


def mean_pool(hidden: Tensor, valid: Tensor, size: Tensor | None = None) -> Tensor:
    """Mean over the live tokens, each weighted with the input tokens it stands for: float [B, C].

    Parameters
    ----------
    hidden : float [B, K, C]. valid : bool [B, K]. size : float [B, K]; one each where absent.
    """
    weight = valid.to(hidden.dtype) if size is None else (size * valid).to(hidden.dtype)
    return (hidden * weight.unsqueeze(-1)).sum(1) / weight.sum(1, keepdim=True)
