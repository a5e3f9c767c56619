"""A report as CSV files, one table a file, units in every header."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from topsieve_sim.errors import InputError
from topsieve_sim.files import written_whole
from topsieve_sim.report.model import Report, Stall

Rows = Iterable[Sequence[object]]


def write_csv(report: Report, folder: str | Path) -> tuple[Path, ...]:
    """Write the tables of `report` into `folder` (made if missing) and return their paths.

    Raises
    ------
    InputError
        the folder or a file cannot be written.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder: {error.strerror or error}", source=str(target)) from error
    written = []
    for name, (header, rows) in csv_tables(report).items():
        path = target / f"{name}.csv"
        with written_whole(path) as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(header)
            writer.writerows(rows)
        written.append(path)
    return tuple(written)


def csv_tables(report: Report) -> dict[str, tuple[Sequence[str], Rows]]:
    """Header and rows of every table, by file name without suffix."""
    return {
        "summary": (("quantity", "value", "unit"), _summary(report)),
        "layers": _records(report.layers),
        "tokens": _records(report.tokens),
        "operations": _records(report.operations),
        "timeline": _records(report.timeline),
        "units": (
            ("unit", "busy_cycles", *(f"{cause}_stall_cycles" for cause in Stall), "total_cycles"),
            [
                (row.unit, row.busy_cycles, *(row.stall_cycles.get(cause, 0) for cause in Stall), row.total_cycles)
                for row in report.units
            ],
        ),
        "dram": (("kind", "bytes"), [*report.dram_bytes.items(), ("total", report.dram_bytes_total)]),
        "energy": (
            ("component", "action", "energy_pj"),
            [
                *((part, action, value) for part, acts in report.energy_pj.items() for action, value in acts.items()),
                ("total", "", report.energy_total_pj),
            ],
        ),
        "area": (("component", "area_um2"), [*report.area_um2.items(), ("total", report.area_total_um2)]),
    }


def _summary(report: Report) -> Rows:
    return [
        ("accelerator", report.accelerator.name, ""),
        ("accelerator_digest", report.accelerator_digest, ""),
        ("model", report.model, ""),
        ("method", report.method, ""),
        ("seed", report.seed, ""),
        ("cycles", report.cycles, "core cycles"),
        ("latency", report.latency_us, "us"),
        ("macs", report.macs, ""),
        ("flops", report.flops, ""),
        ("attention_flops", report.attention_flops, ""),
        ("attention_flops_dense", report.attention_flops_dense, ""),
        ("dram", report.dram_bytes_total, "bytes"),
        ("energy", report.energy_total_pj, "pJ"),
        ("power", report.power_w, "W"),
        ("area", report.area_total_um2, "um2"),
        ("query_rows", report.query_rows, ""),
        ("lsb_rows", report.lsb_rows, ""),
        ("selection", report.selection.cycles, "core cycles"),
        ("selection_overlapped", report.selection.overlapped_cycles, "core cycles"),
        ("selection_dram", report.selection.dram_bytes, "bytes"),
        ("selection_energy", report.selection.energy_pj, "pJ"),
        *(("note", note, "") for note in report.notes),
    ]


def _records(rows: Sequence[object]) -> tuple[Sequence[str], Rows]:
    dumped = [row.model_dump(mode="json") for row in rows]  # type: ignore[attr-defined]
    header = list(dumped[0]) if dumped else []
    return header, [list(row.values()) for row in dumped]
