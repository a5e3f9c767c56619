"""Headings of the page's tables: what a column holds, its unit, and whether less of it or more is better."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

LOWER, HIGHER = "lower", "higher"
# Last part of a quantity's name: unit. The longer ones come first, so that a name loses all of its unit.
UNITS = (
    ("_flops_per_byte", "FLOP/B"),
    ("_tflops", "TFLOPS"),
    ("_flops", "FLOP"),
    ("_cycles", "cycles"),
    ("_bytes", "B"),
    ("_mm2", "mm²"),
    ("_um2", "µm²"),
    ("_us", "µs"),
    ("_uj", "µJ"),
    ("_pj", "pJ"),
    ("_w", "W"),
)
# Names that are a unit, or an abbreviation.
NAMES = {
    "cycles": ("duration", "cycles"),
    "bytes": ("traffic", "B"),
    "macs": ("multiply-accumulates", "MAC"),
    "flops": ("floating-point operations", "FLOP"),
    "dram_bytes": ("DRAM traffic", "B"),
    "lsb_rows": ("rows with LSBs", "rows"),
    "attention_flops_dense": ("attention if nothing were left out", "FLOP"),
    "query_rows": ("query rows", "rows"),
    "gpu_us": ("GPU time", "µs"),
    "gpu_energy_uj": ("GPU energy", "µJ"),
    "gpu_source": ("GPU time is", ""),
    "gpu_power_source": ("GPU power is", ""),
    "gpu_measured_share": ("GPU calls measured", ""),
    "accelerator_over_gpu_time": ("time over the GPU's", ""),
    "accelerator_over_gpu_energy": ("energy over the GPU's", ""),
}
# Of these less is better.
COSTS = frozenset(
    {
        "cycles",
        "latency_cycles",
        "latency_us",
        "dram_bytes",
        "energy_pj",
        "power_w",
        "area_mm2",
        "selection_cycles",
        "selection_energy_pj",
    }
)

Column = dict[str, Any]


def heading(name: str) -> tuple[str, str]:
    """What a column called `name` is called on the page, and its unit: `energy_pj` is energy in pJ."""
    if name in NAMES:
        return NAMES[name]
    for ending, unit in UNITS:
        if name.endswith(ending):
            return _words(name.removesuffix(ending)), unit
    return _words(name), ""


def _words(name: str) -> str:
    return re.sub(r"[_.]", " ", name)


def column(name: str, values: Sequence[Any], better: str | None = None, title: str | None = None) -> Column:
    """A column for the page; it is one of numbers where all `values` that are there are numbers.

    Parameters
    ----------
    better : `LOWER` or `HIGHER`; default: by the name.
    title : heading without unit; default: by the name.
    """
    text, unit = heading(name)
    there = [value for value in values if value is not None]
    numeric = bool(there) and all(isinstance(value, int | float) for value in there)
    sense = better or (LOWER if name in COSTS else None)
    return {"key": name, "heading": title or text, "unit": unit, "numeric": numeric, "better": sense}


def table(name: str, caption: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """A table for the page; rows whose first cell is `total` stay below the others however they are sorted."""
    body = [list(row) for row in rows if row[0] != "total"]
    foot = [list(row) for row in rows if row[0] == "total"]
    columns = [column(key, [row[place] for row in body]) for place, key in enumerate(header)]
    return {"id": name, "caption": caption, "columns": columns, "rows": body, "foot": foot}
