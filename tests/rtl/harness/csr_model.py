"""The register map in plain Python: what software sees, one operation after the other."""

from __future__ import annotations

from dataclasses import dataclass, field

from topsieve_rtl.csr import Access, RegisterMap

OKAY, SLAVE_ERROR = 0, 2


@dataclass
class RegisterModel:
    """`inputs` are the levels of `ro` fields; `stored` the values of `rw` and `w1c` fields."""

    table: RegisterMap
    fixed: dict[tuple[str, str], int]
    counter_bits: int = 64
    stored: dict[tuple[str, str], int] = field(default_factory=dict)
    inputs: dict[tuple[str, str], int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)
    pulses: list[tuple[str, str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for register in self.table.registers:
            for part in register.fields:
                self.stored[register.name, part.name] = self.fixed.get((register.name, part.name), part.reset)

    def event(self, register: str, name: str, value: int) -> None:
        """Hardware reports `value` for one cycle."""
        if not self.stored[register, name]:
            self.stored[register, name] = value

    def add(self, counter: str, step: int, cycles: int) -> None:
        """Hardware adds `step` in each of `cycles` cycles."""
        total = self.counts.get(counter, 0) + step * cycles
        self.counts[counter] = total % (1 << self.counter_bits)

    def read(self, offset: int) -> tuple[int, int]:
        """(data, response)"""
        for counter in self.table.counters:
            if offset // 8 == counter.offset // 8:
                return self.copies.get(counter.name, 0) >> 8 * (offset & 4) & 0xFFFFFFFF, OKAY
        for register in self.table.registers:
            if register.offset == offset & -4:
                word = 0
                for part in register.fields:
                    key = (register.name, part.name)
                    value = self.stored[key]
                    if part.access is Access.READ_ONLY and key not in self.fixed:
                        value = self.inputs.get(key, 0)
                    if part.access is not Access.PULSE:
                        word |= value << part.lowest_bit
                return word, OKAY
        return 0, SLAVE_ERROR

    def write(self, offset: int, data: int, strobes: int) -> int:
        """Response"""
        mask = sum(0xFF << 8 * byte for byte in range(4) if strobes >> byte & 1)
        for register in self.table.registers:
            if register.offset != offset & -4:
                continue
            for part in register.fields:
                key = (register.name, part.name)
                written = (data & mask & part.mask) >> part.lowest_bit
                touched = (mask & part.mask) >> part.lowest_bit
                if part.access is Access.READ_WRITE:
                    self.stored[key] = self.stored[key] & ~touched | written
                elif part.access is Access.WRITE_ONE_TO_CLEAR and written:
                    self.stored[key] = 0
                elif part.access is Access.PULSE and written:
                    self.pulses.append((*key, written))
                    if key == ("control", "snapshot"):
                        self.copies = dict(self.counts)
            if register.name == "control" and data & mask & register.field("clear").mask:
                self.counts = {}
            return OKAY
        return self.read(offset)[1]

    @property
    def interrupt(self) -> int:
        """Level of the interrupt."""
        return int(
            any(
                self.stored["interrupt_enable", part.name] & self.stored["interrupt_status", part.name]
                for part in self.table.register("interrupt_status").fields
            )
        )
