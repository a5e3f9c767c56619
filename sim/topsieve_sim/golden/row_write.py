"""The row writer's function: which bursts it asks for and which words and strobes they carry.

A row is a number of bytes from a byte address on. It becomes bus words, the first and the last with the strobes of its
own bytes, in INCR bursts that cross no 4 kB boundary (AXI4 specification, sections A3.4.1 and A3.4.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from numba import njit

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.golden.plane_fetch import BOUNDARY_BYTES, Burst


class WriteWord(NamedTuple):
    """One bus word: data as an integer, a strobe bit a byte, whether it ends its burst. Bytes without a strobe are 0."""

    data: int
    strobes: int
    last: int


@dataclass(frozen=True)
class RowWriteShape:
    """Parameters of a row writer.

    Attributes
    ----------
    data_bits : width of the AXI data bus, a power of two from 8 to 1024.
    address_bits : width of AWADDR.
    max_burst_words : words of a burst, at most 256.
    max_outstanding : bursts that wait for their response.
    id_bits : width of AWID; every burst has ID 0.

    Raises
    ------
    ValueError
        a parameter out of range.
    """

    data_bits: int
    address_bits: int = 32
    max_burst_words: int = 16
    max_outstanding: int = 4
    id_bits: int = 1

    def __post_init__(self) -> None:
        if self.data_bits & (self.data_bits - 1) or not 8 <= self.data_bits <= 1024:
            raise ValueError(f"data_bits must be a power of two from 8 to 1024, got {self.data_bits}")
        for name, low, high in (
            ("address_bits", 12, 62),
            ("max_burst_words", 1, 256),
            ("max_outstanding", 1, 256),
            ("id_bits", 1, 32),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {getattr(self, name)}")

    @classmethod
    def of(cls, config: AcceleratorConfig) -> RowWriteShape:
        """The writer of a configuration.

        Raises
        ------
        ValueError
            its memory has no bus that an AXI4 port can have.
        """
        axi = config.memory.axi
        return cls(8 * config.memory.bytes_per_cycle, axi.address_bits, axi.burst_words, axi.outstanding)

    @property
    def data_bytes(self) -> int:
        """Bytes of a bus word."""
        return self.data_bits // 8

    def words(self, address: int, size: int) -> int:
        """Bus words that `size` bytes from `address` on touch."""
        return -(-(address % self.data_bytes + size) // self.data_bytes) if size else 0


@njit(cache=True)
def burst_length(address: int, words: int, data_bytes: int, max_burst_words: int) -> int:
    """Words of the next burst of `words` words from `address` on."""
    to_boundary = (BOUNDARY_BYTES - address % BOUNDARY_BYTES + data_bytes - 1) // data_bytes
    return int(min(words, max_burst_words, to_boundary))


def write_bursts(shape: RowWriteShape, address: int, size: int) -> list[Burst]:
    """The bursts of a row of `size` bytes from `address` on; addresses of whole words."""
    words = shape.words(address, size)
    address -= address % shape.data_bytes
    bursts = []
    while words:
        length = burst_length(address, words, shape.data_bytes, shape.max_burst_words)
        bursts.append(Burst(address, length))
        words -= length
        address = (address + length * shape.data_bytes) % (1 << shape.address_bits)
    return bursts


def write_words(shape: RowWriteShape, address: int, row: bytes) -> list[WriteWord]:
    """The words of `row` from `address` on, in the order of `write_bursts`."""
    skip = address % shape.data_bytes
    count = shape.words(address, len(row))
    image = bytes(skip) + row
    image += bytes(count * shape.data_bytes - len(image))
    strobes = ((1 << len(row)) - 1) << skip
    ends = set(accumulate(burst.words for burst in write_bursts(shape, address, len(row))))
    words = []
    for n in range(count):
        data = int.from_bytes(image[n * shape.data_bytes : (n + 1) * shape.data_bytes], "little")
        strobe = strobes >> n * shape.data_bytes & ((1 << shape.data_bytes) - 1)
        words.append(WriteWord(data, strobe, int(n + 1 in ends)))
    return words


def packed_row(elements: Sequence[int], bits: int) -> bytes:
    """Signed elements of `bits` bits, packed from the lowest bit of the first byte on, padded with zeros to whole bytes."""
    value = 0
    for place, element in enumerate(elements):
        value |= (element & ((1 << bits) - 1)) << place * bits
    return value.to_bytes((len(elements) * bits + 7) // 8, "little")
