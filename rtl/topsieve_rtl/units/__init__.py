"""Units as the emitter, the synthesis report and the verification see them."""

from topsieve_rtl.units.registry import find_unit, unit_names
from topsieve_rtl.units.unit import Unit

__all__ = ["Unit", "find_unit", "unit_names"]
