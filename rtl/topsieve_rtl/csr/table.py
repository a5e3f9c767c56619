"""Registers as data: the one source of the RTL, the C header, the document and the driver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

WORD_BITS = 32
WORD_BYTES = 4


class Access(StrEnum):
    """What software may do with a field."""

    READ_ONLY = "ro"
    READ_WRITE = "rw"
    WRITE_ONE_TO_CLEAR = "w1c"
    PULSE = "pulse"


@dataclass(frozen=True)
class Field:
    """Bits of a register.

    Attributes
    ----------
    name : lower case words joined by underscores.
    bits : width.
    access : `ro`: driven by hardware. `rw`: kept. `w1c`: hardware sets it while it is 0, and a 1 written to any of its
        bits clears all of it (an event in the same cycle wins). `pulse`: a written 1 is high for one cycle; reads 0.
    description : one sentence.
    lowest_bit : place in the register.
    reset : of `rw`, after reset.
    """

    name: str
    bits: int
    access: Access
    description: str
    lowest_bit: int = 0
    reset: int = 0

    @property
    def mask(self) -> int:
        """The field's bits in its register."""
        return ((1 << self.bits) - 1) << self.lowest_bit


@dataclass(frozen=True)
class Register:
    """A 32-bit word at the byte address `offset`; bits outside every field read 0."""

    name: str
    offset: int
    description: str
    fields: tuple[Field, ...]

    def field(self, name: str) -> Field:
        """The field of that name.

        Raises
        ------
        KeyError
            there is none.
        """
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"register {self.name} has no field {name}")


@dataclass(frozen=True)
class Counter:
    """A performance counter: 64 bits in two registers, `<name>_lo` at `offset` and `<name>_hi` after it.

    Attributes
    ----------
    step_bits : width of what hardware can add in a cycle.
    """

    name: str
    offset: int
    description: str
    step_bits: int = 1

    @property
    def registers(self) -> tuple[Register, Register]:
        """The two halves of the snapshot."""
        low, high = (
            Register(
                f"{self.name}_{half}",
                self.offset + WORD_BYTES * place,
                f"{self.description}; {word} half of the snapshot.",
                (Field("value", WORD_BITS, Access.READ_ONLY, f"Bits {first} to {first + 31}."),),
            )
            for place, (half, word, first) in enumerate((("lo", "low", 0), ("hi", "high", 32)))
        )
        return low, high


@dataclass(frozen=True)
class RegisterMap:
    """All registers of a slave.

    Raises
    ------
    ValueError
        names or places clash, or a field does not fit; the message names them.
    """

    name: str
    registers: tuple[Register, ...]
    counters: tuple[Counter, ...]

    def __post_init__(self) -> None:
        names: set[str] = set()
        offsets: dict[int, str] = {}
        for register in self.all_registers():
            if register.name in names:
                raise ValueError(f"two registers are named {register.name}")
            if register.offset % WORD_BYTES or register.offset < 0:
                raise ValueError(f"{register.name}: offset must be a multiple of 4, got {register.offset}")
            if register.offset in offsets:
                raise ValueError(f"{register.name} and {offsets[register.offset]} share offset {register.offset:#x}")
            names.add(register.name)
            offsets[register.offset] = register.name
            used = 0
            for field in register.fields:
                if field.bits < 1 or field.lowest_bit < 0 or field.lowest_bit + field.bits > WORD_BITS:
                    raise ValueError(f"{register.name}.{field.name} does not fit 32 bits")
                if field.mask & used:
                    raise ValueError(f"{register.name}.{field.name} overlaps another field")
                if field.reset >> field.bits or (field.reset and field.access is not Access.READ_WRITE):
                    raise ValueError(f"{register.name}.{field.name}: reset {field.reset} is not possible")
                used |= field.mask

    def all_registers(self) -> Iterator[Register]:
        """Every register in the order of the table, the counters' halves last."""
        yield from self.registers
        for counter in self.counters:
            yield from counter.registers

    def register(self, name: str) -> Register:
        """The register of that name.

        Raises
        ------
        KeyError
            there is none.
        """
        for register in self.all_registers():
            if register.name == name:
                return register
        raise KeyError(f"no register {name}")

    @property
    def address_bits(self) -> int:
        """Bits of a byte address that reaches every register."""
        return (max(register.offset for register in self.all_registers()) + WORD_BYTES - 1).bit_length()
