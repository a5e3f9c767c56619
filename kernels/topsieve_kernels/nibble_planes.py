"""Keys in two planes of four bits: whole = 16 msb + lsb, msb from -8 to 7 (arithmetic shift), lsb from 0 to 15.

A packed byte holds channel j in its low nibble and channel j + D/2 in its high nibble, so that unpacking needs no
interleaving: the query is split in halves instead. D must be even.
"""

from dataclasses import dataclass

import torch

from topsieve_kernels.backend import require

LSB_BITS = 4


@dataclass(frozen=True)
class NibblePlanes:
    """msb, lsb : uint8 [..., N, D/2]; step : float32 [..., N], the real value of one integer step of each row."""

    msb: torch.Tensor
    lsb: torch.Tensor
    step: torch.Tensor


def quantise_rows(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 [..., N, D] and float32 step [..., N] of every row: round half to even to +-127; a zero row has step 1."""
    largest = values.float().abs().amax(-1)
    step = torch.where(largest > 0, largest, 127.0) / 127.0
    return (values.float() / step[..., None]).round().clamp(-127, 127).to(torch.int8), step


def pack_planes(whole: torch.Tensor, step: torch.Tensor) -> NibblePlanes:
    """Planes of int8 rows [..., N, D] with their steps [..., N].

    Raises
    ------
    ValueError
        dtype is not int8, or D is odd.
    """
    require(whole.dtype == torch.int8, "whole", whole.dtype, "int8")
    require(whole.shape[-1] % 2 == 0, "D", whole.shape[-1], "an even number of channels")
    number = whole.to(torch.int32)
    return NibblePlanes(_pack(number >> LSB_BITS), _pack(number & 15), step.float().contiguous())


def unpack_planes(planes: NibblePlanes) -> tuple[torch.Tensor, torch.Tensor]:
    """Signed MSB and unsigned LSB plane, int32 [..., N, D]; whole = 16 msb + lsb."""
    msb, lsb = (torch.cat((plane & 15, plane >> LSB_BITS), -1).to(torch.int32) for plane in (planes.msb, planes.lsb))
    return (msb ^ 8) - 8, lsb


def _pack(nibbles: torch.Tensor) -> torch.Tensor:
    low, high = (nibbles & 15).to(torch.uint8).chunk(2, -1)
    return (low | high << LSB_BITS).contiguous()
