"""What a timeline shows: slices of units and counters over time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Counter:
    """A quantity over time: `values[i]` holds from cycle `cycles[i]` until the next one.

    cycles : ascending. unit : of the values.
    """

    name: str
    unit: str
    cycles: tuple[int, ...]
    values: tuple[float, ...]
