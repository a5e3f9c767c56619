"""Requests of the attention kernel for planes of keys and values, as commands of a fetcher where there is one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.timing.memory_port import FETCHER, REQUESTS, MemoryPort, request


class GroupAddresses(NamedTuple):
    """Where a group's operands stand, for fetchers; empty arrays where nobody looks at them.

    head : int64 [3, heads], byte address of each head's MSB plane, LSB plane, values.
    stride : int64 [3], distances of their rows in bytes.
    query : int64 [rows], byte address of each row's query.
    gather : keys and values are gathered by `tokens`.
    tokens : int64 [keys], memory row of each key.
    survivors : int64 [rows, kept], memory rows of the values that are fetched for a row (decoding with selection).
    output : int64 [rows], byte address of each output row.
    """

    head: NDArray[np.int64]
    stride: NDArray[np.int64]
    query: NDArray[np.int64]
    gather: bool
    tokens: NDArray[np.int64]
    survivors: NDArray[np.int64]
    output: NDArray[np.int64]


NOWHERE = GroupAddresses(
    np.zeros((3, 0), np.int64),
    np.zeros(3, np.int64),
    np.zeros(0, np.int64),
    False,
    np.zeros(0, np.int64),
    np.zeros((0, 0), np.int64),
    np.zeros(0, np.int64),
)


@njit(cache=True)
def request_plane(
    port: MemoryPort,
    places: GroupAddresses,
    offered: int,
    lanes: int,
    kind: int,
    head: int,
    survivors_of: int,
    rows: int,
    head_dim: int,
    row_bits: int,
    arrival: NDArray[np.int64],
    table: NDArray[np.int64],
    size: NDArray[np.int64],
) -> int:
    """One request of plane `kind` of `head`, offered from cycle `offered` on; the cycle in which it is picked.

    `survivors_of` >= 0: the values of that row's survivors alone.
    """
    base, stride, gather, indices = 0, 0, False, places.tokens
    if port.kind == FETCHER:
        base, stride = places.head[kind, head], places.stride[kind]
        gather = places.gather
        if survivors_of >= 0:
            gather = True
            indices = places.survivors[survivors_of, :rows]
    number = port.at[REQUESTS]
    if number < port.asked.shape[0]:
        port.asked[number, 0] = kind
        port.asked[number, 1] = head
        port.asked[number, 2] = survivors_of
    picked, amount = request(
        port, offered, rows, head_dim, row_bits, lanes, kind, base, stride, gather, indices, arrival, table
    )
    size[kind] += amount
    return picked
