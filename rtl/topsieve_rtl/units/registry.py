"""The units by name."""

from __future__ import annotations

from topsieve_rtl.units.accelerator import AcceleratorUnit
from topsieve_rtl.units.dot_product import DotProductUnit
from topsieve_rtl.units.importance import HeadImportanceUnit, TokenImportanceUnit
from topsieve_rtl.units.plane_fetcher import PlaneFetcherUnit
from topsieve_rtl.units.softmax import SoftmaxUnit
from topsieve_rtl.units.topk import TopKUnit
from topsieve_rtl.units.unit import Unit
from topsieve_rtl.units.value_selection import ValueSelectionUnit
from topsieve_rtl.units.weighted_sum import WeightedSumUnit
from topsieve_sim.errors import InputError


def unit_names() -> tuple[str, ...]:
    """Names that `find_unit` knows."""
    return tuple(sorted(_registry()))


def find_unit(name: str) -> Unit:
    """The unit of that name.

    Raises
    ------
    InputError
        there is none.
    """
    units = _registry()
    if name not in units:
        raise InputError("unknown unit", value=name, allowed=", ".join(sorted(units)))
    return units[name]


def _registry() -> dict[str, Unit]:
    units: tuple[Unit, ...] = (
        AcceleratorUnit(),
        DotProductUnit(),
        HeadImportanceUnit(),
        PlaneFetcherUnit(),
        SoftmaxUnit(),
        TokenImportanceUnit(),
        TopKUnit(),
        ValueSelectionUnit(),
        WeightedSumUnit(),
    )
    return {unit.name: unit for unit in units}
