"""TokenBridge's quantiser: every channel by itself, with levels even under a normal distribution.

Specification `methods-vision`, section 15.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gaussian_levels(levels: int, reach: float = 3.0) -> Tensor:
    """float32 [levels]: the means of a normal distribution in cells of equal probability, cut off at +- `reach`.

    Raises
    ------
    ValueError
        there are fewer than two levels.
    """
    if levels < 2:
        raise ValueError(f"a quantiser needs at least two levels, got {levels}")
    probability = torch.linspace(0, 1, levels + 1, dtype=torch.float32).double()
    border = torch.special.ndtri(probability).clamp(-reach, reach).float()
    density = (-(border**2) / 2).exp() / math.sqrt(2 * math.pi)
    mass = torch.special.ndtr(border)
    between = mass[1:] - mass[:-1]
    between = torch.where(between == 0, torch.full_like(between, 1e-10), between)
    return (density[:-1] - density[1:]) / between


def quantise(
    values: Tensor, bits: int, low: float = -5.0, high: float = 5.0, reach: float = 3.0
) -> tuple[Tensor, Tensor]:
    """The nearest of 2^bits levels of each value, of equally near ones the lowest: its number, and its value.

    Parameters
    ----------
    values : float, any shape; [low, high] is stretched to +- `reach`, and what is over is cut off.
    """
    levels = gaussian_levels(2**bits, reach)
    scaled = ((values.float() - low) / (high - low) * 2 * reach - reach).clamp(-reach, reach)
    number = (scaled.unsqueeze(-1) - levels).abs().argmin(-1)
    return number, (levels[number] + reach) / (2 * reach) * (high - low) + low
