"""Quantised queries, keys and values, emulated in floating point.

Linear symmetric quantisation with one scale a sequence and head, taken from its live tokens: scale = max|x| / (2^(bits-1) - 1),
integers by rounding half to even. A key of msb + lsb bits splits into planes: the MSB plane is the floor of the integer
divided by 2^lsb_bits, and stands for that multiple of 2^lsb_bits.

Source: specification `accelerator`, section 1.4 (SpAtten, section III-D).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topsieve.reduction.roles import BitPlan


@dataclass(frozen=True)
class QuantisedOperands:
    """Values after quantisation, all float [B, H, N, d]; `key_msb` is what the MSB plane alone says."""

    query: Tensor
    key: Tensor
    key_msb: Tensor
    value: Tensor


def quantise_operands(query: Tensor, key: Tensor, value: Tensor, valid: Tensor, plan: BitPlan) -> QuantisedOperands:
    """Quantise to the widths of `plan`.

    Parameters
    ----------
    query, key, value : float [B, H, N, d].
    valid : bool [B, N], live tokens; the scales look at these only.
    """
    queries, query_scale = quantise(query, valid, plan.query_bits)
    keys, key_scale = quantise(key, valid, plan.key_msb_bits + plan.key_lsb_bits)
    values, value_scale = quantise(value, valid, plan.value_bits)
    step = 2**plan.key_lsb_bits
    return QuantisedOperands(
        query=queries * query_scale,
        key=keys * key_scale,
        key_msb=torch.floor(keys / step) * step * key_scale,
        value=values * value_scale,
    )


def quantise(x: Tensor, valid: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Integers (as float [B, H, N, d]) of `bits` bits and their scale, float [B, H, 1, 1]; scale 1 where all is zero."""
    limit = 2 ** (bits - 1) - 1
    live = x.abs().masked_fill(~valid[:, None, :, None], 0)
    scale = live.amax(dim=(2, 3), keepdim=True) / limit
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.round(x / scale).clamp(-limit, limit), scale
