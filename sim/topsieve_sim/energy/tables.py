"""Technology tables: energies and areas of primitives, each with its unit, node and source.

The tables are the YAML files in `topsieve_sim/energy/tables`; a further technology is a further file there, or a file of
the user's in the same form.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from topsieve_sim.errors import InputError
from topsieve_sim.fields import PresetFolder, validated

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
_WANTED = tuple((primitive, action) for primitive, actions in REQUIRED.items() for action in actions)


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
    status: Literal["cited", "derived", "scaled"]
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


class Calibration(BaseModel):
    """One factor fitted to one published number, and what it multiplies.

    components, actions : names of `topsieve_sim.energy.Component` and `Action`; no actions for an area.
    published, unit, fitted_to : the number, and which it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantity: Literal["energy", "area"]
    components: tuple[str, ...] = Field(min_length=1)
    actions: tuple[str, ...] = ()
    factor: float = Field(gt=0)
    published: float = Field(gt=0)
    unit: Literal["W", "mm2"]
    fitted_to: str = Field(min_length=1)
    source: str = Field(min_length=10)

    @model_validator(mode="after")
    def _whole(self) -> Calibration:
        if (self.quantity == "energy") != bool(self.actions):
            raise ValueError("an energy names the actions it is fitted for, an area names none")
        return self


class TechnologyTable(BaseModel):
    """All rows of one technology.

    base : a shipped technology whose rows stand where this one has none.
    calibration : factors on the energies and areas that a machine is composed of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    technology: str
    base: str | None = None
    rows: tuple[TableRow, ...]
    calibration: tuple[Calibration, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> TechnologyTable:
        own = {(row.primitive, row.action): row for row in self.rows}
        if len(own) != len(self.rows):
            raise ValueError("two rows of one primitive and action")
        unknown = sorted(set(own) - set(_WANTED))
        if unknown:
            raise ValueError(f"rows that no table has: {unknown}; the rows are {list(_WANTED)}")
        missing = [wanted for wanted in _WANTED if wanted not in own and self.base is None]
        if missing:
            raise ValueError(f"the rows must be each of {list(_WANTED)} once; missing: {missing}")
        if self.base is not None and self.base not in technology_names():
            raise ValueError(f"base must be one of {', '.join(technology_names())}, got {self.base!r}")
        return self

    def row(self, primitive: str, action: str) -> TableRow:
        """The row of `primitive` and `action`, own or of the base."""
        for row in self.rows:
            if row.primitive == primitive and row.action == action:
                return row
        if self.base is None:
            raise KeyError((primitive, action))
        return load_technology(self.base).row(primitive, action)

    def all_rows(self) -> tuple[TableRow, ...]:
        """Every row in the order of `REQUIRED`, those of the base included."""
        return tuple(self.row(primitive, action) for primitive, action in _WANTED)

    def value(self, primitive: str, action: str, *widths_bits: int) -> float:
        """Energy in pJ (leakage in pJ per nanosecond) or area in square micrometres at `widths_bits`."""
        return self.row(primitive, action).at(*widths_bits)

    def energy_factor(self, component: str, action: str) -> float:
        """What the calibration multiplies the energy of `action` of `component` by; 1 where it names neither."""
        return math.prod(
            entry.factor
            for entry in self.calibration
            if entry.quantity == "energy" and component in entry.components and action in entry.actions
        )

    def area_factor(self, component: str) -> float:
        """What the calibration multiplies the area of `component` by; 1 where it does not name it."""
        return math.prod(
            entry.factor for entry in self.calibration if entry.quantity == "area" and component in entry.components
        )


def technology_names() -> tuple[str, ...]:
    """Names of the shipped technologies, sorted."""
    return _TABLES.names()


@lru_cache(maxsize=16)
def load_technology(name: str) -> TechnologyTable:
    """The shipped table of technology `name`.

    Raises
    ------
    InputError
        no such table; the message lists those there are.
    """
    if name not in technology_names():
        allowed = f"{', '.join(technology_names())}, or a YAML file"
        raise InputError("unknown technology", field="technology", value=name, allowed=allowed)
    return _TABLES.load(TechnologyTable, name)


def table_from(data: object, source: str) -> TechnologyTable:
    """A table of primitives from the plain data of the file `source`.

    Raises
    ------
    InputError
        a row is missing, unknown or out of range.
    """
    return validated(TechnologyTable, data, source)
