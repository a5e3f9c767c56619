"""Rotary positions: turning keys and queries by whole positions, in the halves convention of Llama and Qwen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Model families with rotary positions.
ROTARY_FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class Rotary:
    """`frequencies` float [d / 2], radians a position; `factor` scales what was rotated (1 in plain models)."""

    frequencies: Tensor
    factor: float = 1.0

    def turned(self, x: Tensor, by: Tensor) -> Tensor:
        """`x` float [..., d] rotated on by `by` (int64 [...]) positions; its scale is untouched."""
        angle = by.unsqueeze(-1).to(torch.float32) * self.frequencies.to(x.device)
        cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        low, high = x.chunk(2, dim=-1)
        return torch.cat([low * cosine - high * sine, high * cosine + low * sine], dim=-1)

    def matrix(self, by: Tensor, dtype: torch.dtype) -> Tensor:
        """float [..., d, d]: the matrices that `turned` multiplies column vectors with."""
        identity = torch.eye(2 * self.frequencies.numel(), dtype=dtype, device=by.device)
        turned = self.turned(identity.expand(*by.shape, -1, -1), by.unsqueeze(-1).expand(*by.shape, identity.shape[0]))
        return turned.transpose(-1, -2)
