"""Filling the request table: addresses to banks and rows, grouped by channel, linked in order of submission."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.dram.address import field_positions
from topsieve_sim.dram.config import DramConfig
from topsieve_sim.dram.requests import NONE, Int64, Requests


class FieldBits(NamedTuple):
    """Where the bits of an address go; each entry is (least significant bit, mask)."""

    channel: tuple[int, int]
    pseudo_channel: tuple[int, int]
    rank: tuple[int, int]
    bank_group: tuple[int, int]
    bank: tuple[int, int]
    row: tuple[int, int]
    offset_bits: int
    ranks: int
    bank_groups: int
    banks_per_group: int


def field_bits(config: DramConfig) -> FieldBits:
    """The kernel's view of an address mapping."""
    organization = config.organization
    bits = {field: (low, (1 << width) - 1) for field, (low, width) in field_positions(config).items()}
    return FieldBits(
        channel=bits["channel"],
        pseudo_channel=bits["pseudo_channel"],
        rank=bits["rank"],
        bank_group=bits["bank_group"],
        bank=bits["bank"],
        row=bits["row"],
        offset_bits=organization.access_bytes.bit_length() - 1,
        ranks=organization.ranks,
        bank_groups=organization.bank_groups,
        banks_per_group=organization.banks_per_group,
    )


class Numbering(NamedTuple):
    """Between request numbers (order of submission) and table rows (grouped by channel for locality)."""

    row_of: Int64
    number_of: Int64
    address: Int64
    """By table row."""


def empty_numbering(rows: int) -> Numbering:
    """Room for `rows` requests; its contents mean nothing yet."""
    return Numbering(*(np.empty(rows, np.int64) for _ in Numbering._fields))


@njit(cache=True)
def _take(address: int, field: tuple[int, int]) -> int:
    return (address >> field[0]) & field[1]


@njit(cache=True)
def fill_rows(
    first: int,
    addresses: Int64,
    is_write: NDArray[np.uint8],
    arrival_cycles: Int64,
    earliest_cycle: int,
    bits: FieldBits,
    channels: int,
    requests: Requests,
    numbering: Numbering,
) -> Int64:
    """Fill table rows `first` onwards; returns the channel of each request (int64 [n], order of submission)."""
    # Bound once: every access through a named tuple inside the loop would touch a reference count.
    line_of, bank_of, row_of, writing_of, arrival_of = (
        requests.line, requests.bank, requests.row, requests.is_write, requests.arrival,
    )  # fmt: skip
    next_of, accept_of, complete_of, merged_of = (
        requests.next_in_channel, requests.accept, requests.complete, requests.next_merged,
    )  # fmt: skip
    table_row_of, number_of, address_of = numbering.row_of, numbering.number_of, numbering.address
    count = addresses.size
    channel_of = np.empty(count, np.int64)
    place = np.zeros(channels + 1, np.int64)
    for i in range(count):
        channel = _take(addresses[i], bits.channel)
        channel_of[i] = channel
        place[channel + 1] += 1
    place[0] = first
    for channel in range(channels):
        place[channel + 1] += place[channel]
    for i in range(count):
        address = addresses[i]
        row = place[channel_of[i]]
        place[channel_of[i]] = row + 1
        unit = _take(address, bits.pseudo_channel) * bits.ranks + _take(address, bits.rank)
        group = unit * bits.bank_groups + _take(address, bits.bank_group)
        line_of[row] = address >> bits.offset_bits
        bank_of[row] = group * bits.banks_per_group + _take(address, bits.bank)
        row_of[row] = _take(address, bits.row)
        writing_of[row] = is_write[i]
        arrival_of[row] = max(arrival_cycles[i], earliest_cycle)
        next_of[row] = NONE
        accept_of[row] = NONE
        complete_of[row] = NONE
        merged_of[row] = NONE
        address_of[row] = address
        number_of[row] = first + i
        table_row_of[first + i] = row
    return channel_of


@njit(cache=True)
def link_rows(
    first: int, channel_of: Int64, numbering: Numbering, requests: Requests, heads: Int64, tails: Int64
) -> None:
    """Append filled rows to the lists of their channels; `heads` is NONE where nothing waits."""
    row_of, next_of = numbering.row_of, requests.next_in_channel
    for i in range(channel_of.size):
        channel = channel_of[i]
        row = row_of[first + i]
        if heads[channel] == NONE:
            heads[channel] = row
        else:
            next_of[tails[channel]] = row
        tails[channel] = row
