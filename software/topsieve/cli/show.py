"""How numbers and tables look on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topsieve_sim.report import Report

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"))
_SMALLEST = (1e-12, "p")
_WIDEST = 400


def quantity(value: float, unit: str) -> str:
    """`value` with three digits and a metric prefix: 12345 B is 12.3 kB, 0.004 J is 4 mJ."""
    factor, prefix = next((entry for entry in _PREFIXES if abs(value) >= entry[0]), _SMALLEST if value else (1.0, ""))
    return f"{value / factor:.3g} {prefix}{unit}"


def count(value: int) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,}"


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage."""
    return f"{100 * share:.1f} %"


def print_table(title: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout.

    Parameters
    ----------
    columns : heading and `left` or `right`.
    rows : one text a column.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for heading, side in columns:
        table.add_column(heading, justify="right" if side == "right" else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # As wide as the content: a terminal wraps lines that are too long, a file or pipe takes them whole.
    Console(file=sys.stdout, width=_WIDEST).print(table, crop=False)


def print_report(report: Report) -> None:
    """The main numbers of one simulation, its busiest stalls, its layers."""
    machine = report.accelerator
    print(f"{report.model} ({report.method}) on {machine.name}, digest {report.accelerator_digest}")
    facts: Mapping[str, Any] = {
        "cycles": f"{count(report.cycles)} ({report.latency_us:,.2f} us at {machine.clock_mhz:g} MHz)",
        "operations": f"{quantity(report.flops, 'FLOP')}, of them attention {quantity(report.attention_flops, 'FLOP')}",
        "DRAM": quantity(report.dram_bytes_total, "B"),
        "energy": f"{quantity(report.energy_total_pj * 1e-12, 'J')}, {report.power_w:.3g} W on average",
        "selection": f"{count(report.selection.cycles)} of the cycles, "
        f"{quantity(report.selection.energy_pj * 1e-12, 'J')} of the energy",
        "area": f"{report.area_total_um2 / 1e6:.3g} mm2",
        "LSB rows": f"{count(report.lsb_rows)} of {count(report.query_rows)} query rows",
    }
    for name, text in facts.items():
        print(f"  {name:11} {text}")
    print_table(
        "",
        [("unit", "left"), ("busy", "right"), ("", "right"), ("waits mostly for", "left")],
        [
            [
                row.unit.value,
                count(row.busy_cycles),
                percent(row.busy_cycles / report.cycles) if report.cycles else "",
                main_stall(row.stall_cycles, report.cycles),
            ]
            for row in report.units
        ],
    )
    for note in report.notes:
        print(f"note: {note}")


def main_stall(stall_cycles: Mapping[Any, int], cycles: int) -> str:
    """The largest cause of a unit's stalls with its share of all cycles; empty where it never stalled."""
    if not cycles or not any(stall_cycles.values()):
        return ""
    cause = max(stall_cycles, key=lambda name: (stall_cycles[name], str(name)))
    return f"{cause} {percent(stall_cycles[cause] / cycles)}"
