"""A driver over two callables, for any way to reach the registers: a memory map, a debug bridge, a simulator."""

from __future__ import annotations

from collections.abc import Callable

from topsieve_rtl.csr.table import WORD_BYTES, Access, Register, RegisterMap

Read32 = Callable[[int], int]
Write32 = Callable[[int, int], None]


class RegisterAccess:
    """One register: `read()` returns its fields, `write(start=1)` sets fields."""

    def __init__(self, register: Register, read32: Read32, write32: Write32) -> None:
        self._register = register
        self._read32 = read32
        self._write32 = write32

    def read_word(self) -> int:
        """All 32 bits."""
        return self._read32(self._register.offset)

    def read(self) -> dict[str, int]:
        """Value of each field."""
        word = self.read_word()
        return {field.name: (word & field.mask) >> field.lowest_bit for field in self._register.fields}

    def write(self, **values: int) -> None:
        """Write the named fields; other `rw` fields keep their value, `w1c` and `pulse` fields get 0.

        Raises
        ------
        KeyError
            no such field.
        ValueError
            a value that does not fit, or a read-only field.
        """
        word = named = 0
        for name, value in values.items():
            field = self._register.field(name)
            if field.access is Access.READ_ONLY:
                raise ValueError(f"{self._register.name}.{name} is read only")
            if not 0 <= value < 1 << field.bits:
                raise ValueError(f"{self._register.name}.{name} has {field.bits} bits, got {value}")
            word |= value << field.lowest_bit
            named |= field.mask
        kept = sum(field.mask for field in self._register.fields if field.access is Access.READ_WRITE) & ~named
        if kept:
            word |= self.read_word() & kept
        self._write32(self._register.offset, word)


class Driver:
    """Every register of a map by name: `driver.status.read()["busy"]`, `driver.control.write(start=1)`.

    Parameters
    ----------
    table : the map.
    read32 : byte offset -> word.
    write32 : (byte offset, word) -> None.
    """

    def __init__(self, table: RegisterMap, read32: Read32, write32: Write32) -> None:
        self.table = table
        self._read32 = read32
        self._registers = {
            register.name: RegisterAccess(register, read32, write32) for register in table.all_registers()
        }

    def __getattr__(self, name: str) -> RegisterAccess:
        try:
            return self.__dict__["_registers"][name]
        except KeyError:
            raise AttributeError(f"no register {name}") from None

    def counters(self) -> dict[str, int]:
        """Every performance counter, all of the same cycle."""
        self.control.write(snapshot=1)
        return {
            counter.name: self._read32(counter.offset) | self._read32(counter.offset + WORD_BYTES) << 32
            for counter in self.table.counters
        }
