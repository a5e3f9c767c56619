"""Technology tables: energies and areas of primitives, each with its unit, node and source.

The tables are the YAML files in `topsieve_sim/energy/tables`; a further technology is a further file there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from topsieve_sim.errors import InputError
from topsieve_sim.fields import PresetFolder

_TABLES = PresetFolder("topsieve_sim.energy", "tables", "technology")

# What every table must hold: primitive -> actions.
REQUIRED: dict[str, tuple[str, ...]] = {
    "multiplier": ("multiply", "area"),
    "adder": ("add", "area"),
    "comparator": ("compare", "area"),
    "register": ("access", "area"),
    "sram": ("read", "write", "leak", "area"),
    "dram": ("access", "transfer", "activate"),
}


class TableRow(BaseModel):
    """One number: what `action` of `primitive` costs at `width_bits`, and where the number comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    primitive: str
    action: str
    value: float = Field(gt=0)
    unit: Literal["pJ", "pJ/ns", "um2"]
    width_bits: int = Field(ge=0)
    scaling: Literal["product", "linear", "none"]
    node_nm: int = Field(ge=0, description="node of the number; 0 for a memory device")
    status: Literal["cited", "derived"]
    source: str = Field(min_length=10)

    def at(self, *widths_bits: int) -> float:
        """The value for operands of `widths_bits`: two widths where it scales with the product, else one or none."""
        if self.scaling == "none":
            return self.value
        if self.scaling == "linear":
            (width,) = widths_bits
            return self.value * width / self.width_bits
        first, second = widths_bits
        return self.value * first * second / self.width_bits**2


class TechnologyTable(BaseModel):
    """All rows of one technology."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    technology: str
    rows: tuple[TableRow, ...]

    @model_validator(mode="after")
    def _complete(self) -> TechnologyTable:
        held = [(row.primitive, row.action) for row in self.rows]
        wanted = [(primitive, action) for primitive, actions in REQUIRED.items() for action in actions]
        if sorted(held) != sorted(wanted):
            missing = sorted(set(wanted) - set(held)) or "nothing"
            raise ValueError(f"the rows must be each of {wanted} once; missing: {missing}")
        return self

    def value(self, primitive: str, action: str, *widths_bits: int) -> float:
        """Energy in pJ (leakage in pJ per nanosecond) or area in square micrometres at `widths_bits`."""
        for row in self.rows:
            if row.primitive == primitive and row.action == action:
                return row.at(*widths_bits)
        raise KeyError((primitive, action))


def technology_names() -> tuple[str, ...]:
    """Names of the shipped technologies, sorted."""
    return _TABLES.names()


@lru_cache(maxsize=8)
def load_technology(name: str) -> TechnologyTable:
    """The table of technology `name`.

    Raises
    ------
    InputError
        no such table; the message lists those there are.
    """
    if name not in technology_names():
        raise InputError("unknown technology", field="technology", value=name, allowed=", ".join(technology_names()))
    return _TABLES.load(TechnologyTable, name)
