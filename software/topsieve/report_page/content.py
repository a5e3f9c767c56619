"""What the page of a run or of a comparison shows, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from topsieve.explain import ACTIVITIES, BUSY, BUSY_SHADES, UNKNOWN, Point, layer_points, peaks, run_point
from topsieve.exploration.pareto import pareto_front
from topsieve.gpu import GPU_KEY, gpu_columns
from topsieve.plots import MARKERS, PALETTE
from topsieve.report_page.columns import HIGHER, LOWER, Column, column, heading, table
from topsieve_sim.report import Report, Stall, Unit, csv_tables

UM2_PER_MM2 = 1e6
GPU_ROOFLINE = "a lower bound of its time: ratios to it are at most what is shown"
# Tables of a run that the page shows, with their captions; its timeline is drawn.
RUN_TABLES = {
    "units": "Every cycle of every unit",
    "layers": "Layers; layer -1 stands outside the layers",
    "operations": "Operations by kind; what runs on the host has no cycles here",
    "dram": "DRAM traffic by what it is for",
    "energy": "Energy by component and action",
    "area": "Area by component",
}


def run_page(name: str, report: Report) -> dict[str, Any]:
    """The page of one run."""
    return {
        "title": f"{name} on {report.accelerator.name}",
        "kind": "run",
        "summary": run_summary(report),
        "roofline": _roofline({name: report}, layer_points(report) if len(report.layers) > 1 else []),
        "runs": [_run(name, report)],
        "style": style(),
    }


def comparison_page(
    reports: Mapping[str, Report], results: Sequence[Mapping[str, Any]], refused: Mapping[str, str], gpu: str = ""
) -> dict[str, Any]:
    """The page of a comparison.

    Parameters
    ----------
    reports : by method.
    results : of `comparison.json`, in the order of `reports`.
    refused : method to the reason why it did not run.
    gpu : what the accelerator stands beside, where the results say what the same work costs there.
    """
    first = next(iter(reports.values()))
    columns, rows = _methods(reports, results)
    quality = [entry["key"] for entry in columns if entry.get("quality")][:1]
    objectives = ["cycles", "energy_pj", *quality]
    machine = first.accelerator.name
    return {
        "title": f"{len(reports)} methods on {first.model}, accelerator {machine}",
        "kind": "comparison",
        "summary": [
            ["model", first.model, ""],
            ["accelerator", machine, ""],
            ["accelerator digest", first.accelerator_digest, ""],
            ["seed", first.seed, ""],
            ["methods that ran", len(reports), ""],
            ["methods refused", len(refused), ""],
            *([["GPU beside it", gpu, ""], ["roofline of the GPU", GPU_ROOFLINE, ""]] if gpu else []),
        ],
        "points": {
            "table": {
                "id": "methods",
                "caption": "Each method with what it costs on the accelerator and what it keeps of the answer",
                "columns": columns,
                "rows": rows,
                "foot": [],
            },
            "noun": "Methods",
            "objectives": objectives,
            "front": front_rows(columns, rows, objectives),
            "axes": ["cycles", quality[0] if quality else "energy_pj"],
        },
        "roofline": _roofline(reports, []),
        "runs": [_run(name, report) for name, report in reports.items()],
        "refused": table("refused", "Methods that do not run here", ("method", "reason"), list(refused.items())),
        "style": style(),
    }


def style() -> dict[str, Any]:
    """Colours, markers and hatches of the figures, for the page's plots."""
    activities = [
        {"key": str(key), "colour": colour, "hatch": hatch, "meaning": meaning}
        for key, (colour, hatch, meaning) in ACTIVITIES.items()
    ]
    colour, hatch, _ = UNKNOWN
    return {
        "palette": list(PALETTE),
        "markers": list(MARKERS),
        "activities": activities,
        "unknown": {"colour": colour, "hatch": hatch},
        "busy_shades": list(BUSY_SHADES),
    }


def front_rows(columns: Sequence[Column], rows: Sequence[Sequence[Any]], objectives: Sequence[str]) -> list[int]:
    """Places of the rows that no other beats in all `objectives`, each in its column's better direction."""
    places = [[entry["key"] for entry in columns].index(name) for name in objectives]
    signs = [-1.0 if columns[place]["better"] == HIGHER else 1.0 for place in places]
    return pareto_front([[sign * row[place] for sign, place in zip(signs, places, strict=True)] for row in rows])


def _methods(
    reports: Mapping[str, Report], results: Sequence[Mapping[str, Any]]
) -> tuple[list[Column], list[list[Any]]]:
    """Columns and rows of the methods: what a report says of each, then the measures of quality."""
    measured = [_hardware(report) for report in reports.values()]
    metrics = results[0].get("metrics", []) if results else []
    columns = [column("method", list(reports))]
    told = all(GPU_KEY in result for result in results)
    beside = [gpu_columns(result[GPU_KEY]) if told else {} for result in results]
    measured = [hardware | gpu for hardware, gpu in zip(measured, beside, strict=True)]
    columns += [column(key, [row[key] for row in measured]) for key in measured[0]]
    for metric in metrics:
        better = LOWER if metric.get("lower") else HIGHER
        entry = column(metric["name"], [0.0], better, metric["title"])
        columns.append({**entry, "unit": "", "label": metric["label"], "quality": True})
    rows = [
        [name, *hardware.values(), *(result["fidelity"][metric["name"]] for metric in metrics)]
        for (name, hardware), result in zip(zip(reports, measured, strict=True), results, strict=True)
    ]
    return columns, rows


def _hardware(report: Report) -> dict[str, Any]:
    return {
        "cycles": report.cycles,
        "latency_us": report.latency_us,
        "energy_pj": report.energy_total_pj,
        "power_w": report.power_w,
        "dram_bytes": report.dram_bytes_total,
        "attention_flops": report.attention_flops,
        "attention_tflops": report.attention_tflops,
        "selection_cycles": report.selection.cycles,
        "selection_energy_pj": report.selection.energy_pj,
        "query_rows": report.query_rows,
        "lsb_rows": report.lsb_rows,
        "area_mm2": report.area_total_um2 / UM2_PER_MM2,
    }


def run_summary(report: Report) -> list[list[Any]]:
    """Quantity, value and unit, a row each."""
    measured = _hardware(report)
    said = {
        "model": report.model,
        "method": report.method,
        "accelerator": report.accelerator.name,
        "accelerator_digest": report.accelerator_digest,
        "seed": report.seed,
        **measured,
        "macs": report.macs,
        "flops": report.flops,
        "attention_flops_dense": report.attention_flops_dense,
        "selection_dram_bytes": report.selection.dram_bytes,
    }
    return [[heading(name)[0], value, heading(name)[1]] for name, value in said.items()]


def _roofline(reports: Mapping[str, Report], layers: Sequence[Point]) -> dict[str, Any]:
    first = next(iter(reports.values()))
    compute, bandwidth = peaks(first)
    return {
        "machine": first.accelerator.name,
        "compute_tflops": compute,
        "bandwidth_tbs": bandwidth,
        "points": [_point(run_point(name, report)) for name, report in reports.items()],
        "layers": [_point(point) for point in layers],
    }


def _point(point: Point) -> dict[str, Any]:
    return {"name": point.name, "flops_per_byte": point.flops_per_byte, "tflops": point.tflops}


def _run(name: str, report: Report) -> dict[str, Any]:
    tables = csv_tables(report)
    return {
        "name": name,
        "cycles": report.cycles,
        "cycle_us": report.accelerator.microseconds(1),
        "units": [
            {
                "unit": row.unit.value,
                "cycles": {BUSY: row.busy_cycles, **{str(cause): row.stall_cycles.get(cause, 0) for cause in Stall}},
            }
            for row in report.units
        ],
        "timeline": _timeline(report),
        "tables": [table(key, caption, tables[key][0], list(tables[key][1])) for key, caption in RUN_TABLES.items()],
        "notes": list(report.notes),
    }


def _timeline(report: Report) -> dict[str, Any]:
    """Slices as [unit, start cycle, cycles, busy cycles, name], unit and name as places in the lists beside them."""
    units = [unit for unit in Unit if any(piece.unit is unit for piece in report.timeline)]
    names = list(dict.fromkeys(piece.name for piece in report.timeline))
    place = {name: index for index, name in enumerate(names)}
    row = {unit: index for index, unit in enumerate(units)}
    slices = [
        [row[piece.unit], piece.start_cycle, piece.duration_cycles, piece.busy_cycles, place[piece.name]]
        for piece in report.timeline
    ]
    return {"units": [unit.value for unit in units], "names": names, "slices": slices}
