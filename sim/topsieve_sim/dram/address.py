"""Byte address to channel, rank, bank group, bank, row and column, and back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from topsieve_sim.dram.config import MAPPING_FIELDS, DramConfig
from topsieve_sim.errors import InputError

Int64 = NDArray[np.int64]


class Location(NamedTuple):
    """Where each request goes; int64 [n] each. `column` counts requests inside a row."""

    channel: Int64
    pseudo_channel: Int64
    rank: Int64
    bank_group: Int64
    bank: Int64
    row: Int64
    column: Int64


def field_positions(config: DramConfig) -> dict[str, tuple[int, int]]:
    """Least significant bit and width of each address field."""
    organization = config.organization
    position = organization.access_bytes.bit_length() - 1
    positions = dict.fromkeys(MAPPING_FIELDS, (0, 0))
    for field in reversed(config.address_mapping):
        width = organization.field_size(field).bit_length() - 1
        positions[field] = (position, width)
        position += width
    return positions


def checked_addresses(config: DramConfig, addresses: ArrayLike) -> Int64:
    """Byte addresses as int64.

    Raises
    ------
    InputError
        not integers, or outside the memory.
    """
    array = np.asarray(addresses)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError("must be a one-dimensional integer array", field="addresses", value=str(array.dtype))
    result = array.astype(np.int64)
    capacity = config.organization.capacity_bytes
    if array.size and (int(result.min()) < 0 or int(result.max()) >= capacity):
        outside = int(np.flatnonzero((result < 0) | (result >= capacity))[0])
        raise InputError(
            "address outside the memory",
            source=config.name,
            field=f"addresses[{outside}]",
            value=int(array[outside]),
            allowed=f"0 to {capacity - 1}",
        )
    return result


def decode(config: DramConfig, addresses: Int64) -> Location:
    """Split byte addresses (int64 [n]) into the fields of the mapping."""
    positions = field_positions(config)
    return Location(
        *(
            (addresses >> positions[field][0]) & ((1 << positions[field][1]) - 1)
            for field in ("channel", "pseudo_channel", "rank", "bank_group", "bank", "row", "column")
        )
    )


def encode(config: DramConfig, location: Location) -> Int64:
    """Byte addresses (int64 [n]) of locations; the inverse of `decode` at the first byte of each access."""
    positions = field_positions(config)
    address = np.zeros_like(location.row)
    for field, value in location._asdict().items():
        address |= value << positions[field][0]
    return address


def bank_index(config: DramConfig, location: Location) -> Int64:
    """Bank number inside its channel: pseudo-channel, rank, bank group, bank, the last one fastest."""
    organization = config.organization
    index = location.pseudo_channel * organization.ranks + location.rank
    index = index * organization.bank_groups + location.bank_group
    return index * organization.banks_per_group + location.bank


def split_into_accesses(config: DramConfig, addresses: ArrayLike, bytes_each: int) -> tuple[Int64, Int64]:
    """Cut pieces of `bytes_each` bytes at `addresses` (int [n]) into single accesses.

    Returns the byte addresses of the accesses in order (int64 [m]) and, for each, the index of its piece (int64 [m]).
    """
    if bytes_each < 1:
        raise InputError("must be positive", field="bytes_each", value=bytes_each, allowed=">= 1")
    start = checked_addresses(config, addresses)
    size = config.organization.access_bytes
    first, last = start // size, (start + bytes_each - 1) // size
    count = last - first + 1
    owner = np.repeat(np.arange(start.size, dtype=np.int64), count)
    within = np.arange(owner.size, dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
    return (first[owner] + within) * size, owner
