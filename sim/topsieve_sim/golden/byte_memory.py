"""Memory as bytes behind an AXI4 port, and the packing of rows of elements in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.golden.numbers import Integers


@dataclass
class ByteMemory:
    """An image from address 0 on. Bytes beyond it read as 0 and take no writes; both are decode errors.

    Whole bus words are answered, so a word is there if its first byte is.
    """

    image: NDArray[np.uint8]
    data_bytes: int
    address_mask: int
    read_failed: bool = False
    write_failed: bool = False

    @classmethod
    def of(cls, image: bytes | bytearray, data_bytes: int, address_bits: int) -> ByteMemory:
        """A copy of `image`, filled up with zeros to whole bus words."""
        size = -(-len(image) // data_bytes) * data_bytes
        return cls(np.frombuffer(bytes(image).ljust(size, b"\0"), np.uint8).copy(), data_bytes, (1 << address_bits) - 1)

    def peek(self, addresses: Integers, size: int) -> NDArray[np.uint8]:
        """`size` bytes from each address on, uint8 [*addresses.shape, size], without an access."""
        places = self._places(addresses, size)
        there = places < self.image.size
        found = np.zeros(places.shape, np.uint8)
        found[there] = self.image[places[there]]
        return found

    def touch(self, addresses: Integers, size: int) -> None:
        """Read, but look at the responses alone."""
        self.read_failed |= bool((self._places(addresses, size) >= self.image.size).any())

    def read(self, addresses: Integers, size: int) -> NDArray[np.uint8]:
        """`peek` and `touch`."""
        self.touch(addresses, size)
        return self.peek(addresses, size)

    def _places(self, addresses: Integers, size: int) -> Integers:
        return np.asarray((addresses[..., None] + np.arange(size)) & self.address_mask)

    def write(self, address: int, row: bytes) -> None:
        """`row` from `address` on."""
        places = (address + np.arange(len(row))) & self.address_mask
        there = places < self.image.size
        self.write_failed |= not there.all()
        self.image[places[there]] = np.frombuffer(row, np.uint8)[there]


def unpacked(rows: NDArray[np.uint8], elements: int, bits: int, *, signed: bool) -> Integers:
    """Elements of packed rows, int64 [..., elements]; `rows` uint8 [..., bytes], lowest bit of the first byte first."""
    stream = np.unpackbits(rows, axis=-1, bitorder="little")[..., : elements * bits]
    places = stream.reshape(*rows.shape[:-1], elements, bits).astype(np.int64)
    values = places @ (np.int64(1) << np.arange(bits, dtype=np.int64))
    return np.asarray(values - ((values >> (bits - 1)) << bits) if signed else values)


def packed(elements: Integers, bits: int) -> Iterator[bytes]:
    """The rows of `elements` int64 [rows, n] as whole bytes, the last one padded with zeros; inverse of `unpacked`."""
    stream = (elements[..., None] >> np.arange(bits)) & 1
    for row in np.packbits(stream.astype(np.uint8).reshape(len(elements), -1), axis=-1, bitorder="little"):
        yield row.tobytes()
