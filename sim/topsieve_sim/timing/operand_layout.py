"""Where the operands of an attention group stand in memory, as far as times depend on it: addresses of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig

# Tensors begin at multiples of this, so that no burst of one runs into another's page.
PAGE_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class OperandLayout:
    """Byte addresses of a group's rows.

    heads : int64 [3, heads], first row of each key-value head's MSB plane, LSB plane and values.
    row_bytes : int64 [3], distance of their rows.
    query, output : int64 [rows], each row's query and output.
    tokens : int64 [keys], memory row of each key and value that are gathered; None: rows 0 to keys - 1 without a gather.
    survivors : int64 [rows, kept], memory rows of the values that each row keeps, ascending; needed by decoding with
        selection alone, where None spreads them evenly.
    """

    heads: NDArray[np.int64]
    row_bytes: NDArray[np.int64]
    query: NDArray[np.int64]
    output: NDArray[np.int64]
    tokens: NDArray[np.int64] | None = None
    survivors: NDArray[np.int64] | None = None

    def survivor_rows(self, keys: int, kept: int, rows: int) -> NDArray[np.int64]:
        """`survivors`, or an even spread where nobody decided: int64 [rows, kept]."""
        if self.survivors is not None:
            return self.survivors
        spread = np.arange(kept) * keys // kept
        return np.tile(spread if self.tokens is None else self.tokens[spread], (rows, 1)).astype(np.int64)


def row_bytes(elements: int, bits: int) -> int:
    """Whole bytes of a row."""
    return (elements * bits + 7) // 8


def page_aligned(address: int) -> int:
    """The next page boundary."""
    return -(-address // PAGE_BYTES) * PAGE_BYTES


def packed_layout(
    config: AcceleratorConfig,
    heads: int,
    rows: int,
    keys: int,
    head_dim: int,
    survivors: NDArray[np.int64] | None = None,
) -> OperandLayout:
    """Head-major tensors whose rows touch, each tensor at the next page; every token is there, in order.

    `heads` key-value heads, `rows` query rows of all heads.
    """
    formats = config.formats
    sizes = [row_bytes(head_dim, bits) for bits in (formats.key_msb_bits, formats.key_lsb_bits, formats.value_bits)]
    query_bytes = row_bytes(head_dim, formats.query_bits)
    bus = config.memory.bytes_per_cycle
    output_bytes = -(-row_bytes(head_dim, formats.output_bits) // bus) * bus
    query = np.arange(rows, dtype=np.int64) * query_bytes
    address = page_aligned(rows * query_bytes)
    planes = np.empty((3, heads), np.int64)
    for plane, size in enumerate(sizes):
        planes[plane] = address + np.arange(heads) * keys * size
        address = page_aligned(address + heads * keys * size)
    return OperandLayout(
        heads=planes,
        row_bytes=np.array(sizes, np.int64),
        query=query,
        output=address + np.arange(rows, dtype=np.int64) * output_bytes,
        survivors=survivors,
    )
