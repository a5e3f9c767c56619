"""Where the rows of keys and values lie in memory, and which accesses a gather of them makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig, Layout

Int64 = NDArray[np.int64]

# Regions of planes begin at a multiple of this, so that no two share a DRAM row.
REGION_BYTES = 1 << 16


@dataclass(frozen=True)
class Plane:
    """Rows of one plane: row `token` of `head` begins at
    `base + head x head_bytes + token // page_tokens x page_bytes + token % page_tokens x row_bytes`."""

    base: int
    head_bytes: int
    page_tokens: int
    page_bytes: int
    row_bytes: int

    def addresses(self, head: int, tokens: Int64) -> Int64:
        """Byte addresses of the rows of `tokens` (int64 [n]) of one head."""
        page, place = np.divmod(tokens, self.page_tokens)
        addresses: Int64 = self.base + head * self.head_bytes + page * self.page_bytes + place * self.row_bytes
        return addresses


@dataclass(frozen=True)
class PlaneRows:
    """Bytes of a row in each plane of an attention group; 0 = the plane does not exist."""

    query: int
    key_msb: int
    key_lsb: int
    value: int
    output: int


def place_planes(
    config: AcceleratorConfig, rows: PlaneRows, heads: int, query_heads: int, tokens: int, access_bytes: int
) -> dict[str, Plane]:
    """The planes of a group of `heads` key-value heads and `tokens` tokens, by the name of the field in `PlaneRows`.

    *head_major*: a region a plane, all tokens of a head follow each other. *token_major*: all heads of a token follow
    each other. *paged*: blocks of `page_tokens` tokens of one head hold the rows of all three planes, each plane at a
    multiple of an access, block after block; queries and outputs stay head-major.
    """
    placed: dict[str, Plane] = {}
    base = 0
    memory = config.memory.dram
    paged = {"key_msb": rows.key_msb, "key_lsb": rows.key_lsb, "value": rows.value}
    if memory.layout is Layout.PAGED:
        sizes = {name: _up(memory.page_tokens * size, access_bytes) for name, size in paged.items()}
        block = sum(sizes.values())
        for name, size in paged.items():
            placed[name] = Plane(base, block, memory.page_tokens, heads * block, size)
            base += sizes[name]
        base = _up(heads * -(-tokens // memory.page_tokens) * block, REGION_BYTES)
    for name, size in vars(rows).items():
        if name in placed:
            continue
        count = query_heads if name in ("query", "output") else heads
        if memory.layout is Layout.TOKEN_MAJOR:
            placed[name] = Plane(base, size, 1, count * size, size)
        else:
            placed[name] = Plane(base, tokens * size, 1, size, size)
        base = _up(base + count * tokens * size, REGION_BYTES)
    return placed


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


@njit(cache=True)
def accesses(addresses: Int64, row_bytes: int, access_bytes: int, lanes: int) -> tuple[Int64, Int64]:
    """The accesses that fetch rows at `addresses` (int64 [rows], fetch order), and where each beat of rows is complete.

    An access that the one before it already made is not made again: rows that touch share it. Returns byte addresses
    (int64 [n]) and, for each beat of `lanes` rows, the number of accesses it needs from the front (int64 [beats]).
    """
    made = np.empty(addresses.size * ((row_bytes - 1) // access_bytes + 2), np.int64)
    needed = np.empty(-(-addresses.size // lanes), np.int64)
    count, last = 0, -1
    for row in range(addresses.size):
        end = (addresses[row] + row_bytes - 1) // access_bytes
        for line in range(addresses[row] // access_bytes, end + 1):
            if line != last:
                made[count] = line * access_bytes
                count += 1
                last = line
        needed[row // lanes] = count
    return made[:count].copy(), needed
