"""Explain a run: roofline, stall chart and timeline, as PNG and PDF, and the same in the terminal.

RUN is a report.json, a folder that `topsieve simulate --out` or `topsieve compare` wrote, or one method's folder in it.
With --rows INPUT, the trace that was run, one layer is told row by row: a Perfetto trace with memory bandwidth and queue
fill, and a picture of both.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topsieve_sim.report import Report

HELP = "pictures that explain a run: roofline, stalls, timeline"

FORMS = ("png", "pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="a report.json, or the folder of a run or comparison")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the pictures (default: RUN/report)")
    parser.add_argument("--rows", metavar="INPUT", help="the trace that was run: tell one layer of it row by row")
    parser.add_argument("--layer", type=int, default=0, help="of --rows (default: 0)")
    parser.add_argument("--sequence", type=int, default=0, help="of --rows (default: 0)")
    parser.add_argument("--step", type=int, default=0, help="generated token of --rows (default: 0)")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON instead of tables")


def run(arguments: argparse.Namespace) -> int:
    from topsieve.results import made_folder

    reports = read_run(arguments.run)
    folder = arguments.run if arguments.run.is_dir() else arguments.run.parent
    out = made_folder(arguments.out or folder / "report")
    rows = _rows(arguments, next(iter(reports.values())), out) if arguments.rows else []
    written = _pictures(reports, out) + rows
    if arguments.json:
        print(json.dumps(_facts(reports), indent=1))
    else:
        _show(reports)
        print(f"written to {out}: {', '.join(written)}")
    return 0


def read_run(run: Path) -> dict[str, Report]:
    """The reports of a run by name: one, or one a method of a comparison.

    Raises
    ------
    InputError
        there is no report, or one is not valid.
    """
    from topsieve.compare import REPORT_FILE, method_folder
    from topsieve_sim.errors import InputError
    from topsieve_sim.report import load_report

    allowed = "a report.json, or a folder that topsieve simulate --out or topsieve compare wrote"
    if not run.is_dir():
        if not run.exists():
            raise InputError("no such run", value=str(run), allowed=allowed)
        return _named(load_report(run))
    if (run / REPORT_FILE).exists():
        return _named(load_report(run / REPORT_FILE))
    comparison = run / "comparison.json"
    if not comparison.exists():
        raise InputError("no report in this folder", source=str(run), allowed=allowed)
    try:
        methods = [result["method"] for result in json.loads(comparison.read_text(encoding="utf-8"))["results"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError("not a comparison", source=str(comparison)) from error
    return {method: load_report(method_folder(run, method) / REPORT_FILE) for method in methods}


def _named(report: Report) -> dict[str, Report]:
    return {f"{report.model} {report.method}".strip(): report}


def _pictures(reports: dict[str, Report], out: Path) -> list[str]:
    """Draw everything; the names of the files."""
    if importlib.util.find_spec("matplotlib") is None:
        return ["no pictures: matplotlib is not installed (pip install 'topsieve[plot]')"]
    from topsieve.compare import method_folder
    from topsieve.explain import layer_points, peaks, roofline, run_point, stall_chart, timeline_chart
    from topsieve.results import made_folder

    first = next(iter(reports.values()))
    alone = len(reports) == 1
    points = [run_point(name, report) for name, report in reports.items()]
    layers = layer_points(first) if alone and len(first.layers) > 1 else []
    written = _draw(roofline(points, peaks(first), first.accelerator.name, layers), out / "roofline")
    for name, report in reports.items():
        place = out if alone else made_folder(method_folder(out, name))
        machine = report.accelerator.name
        written += _draw(stall_chart(report, f"{name} on {machine}: where the cycles go"), place / "stalls")
        written += _draw(timeline_chart(report, f"{name} on {machine}: when each unit works"), place / "timeline")
    return [str(path.relative_to(out)) for path in written]


def _draw(figure: Any, path: Path) -> list[Path]:
    from topsieve.plots import write_figure

    paths = [path.with_suffix(f".{form}") for form in FORMS]
    for each in paths:
        write_figure(figure, each)
    return paths


def _rows(arguments: argparse.Namespace, report: Report, out: Path) -> list[str]:
    from topsieve.cli.inputs import read_trace
    from topsieve_sim.engine.rows import row_times
    from topsieve_sim.report import write_timeline

    place = {"layer": arguments.layer, "sequence": arguments.sequence, "step": arguments.step}
    times = row_times(read_trace(arguments.rows), report.accelerator, seed=report.seed, **place)
    stem = "rows-" + "-".join(f"{name}{number}" for name, number in place.items())
    trace = out / f"{stem}.perfetto-trace"
    name = f"{report.accelerator.name}: {times.name}"
    write_timeline(name, report.accelerator.clock_mhz, times.slices, times.counters, trace)
    written = [trace.name]
    if importlib.util.find_spec("matplotlib") is not None:
        from topsieve.explain import rows_chart

        written += [path.name for path in _draw(rows_chart(times), out / stem)]
    return written


def _facts(reports: dict[str, Report]) -> dict[str, Any]:
    """What the tables show, as plain data."""
    from topsieve.explain import peaks, run_point, stall_shares

    found: dict[str, Any] = {}
    for name, report in reports.items():
        point, (compute, bandwidth) = run_point(name, report), peaks(report)
        found[name] = {
            "cycles": report.cycles,
            "flops_per_byte": point.flops_per_byte,
            "tflops": point.tflops,
            "roof_tflops": min(compute, bandwidth * point.flops_per_byte),
            "bound": "memory" if bandwidth * point.flops_per_byte < compute else "arrays",
            "units": {unit.value: shares for unit, shares in stall_shares(report).items()},
        }
    return found


def _show(reports: dict[str, Report]) -> None:
    from topsieve.cli.show import count, percent, print_table
    from topsieve.explain import percentages

    facts = _facts(reports)
    print_table(
        "under the roofs: attention alone",
        [
            ("run", "left"),
            *((name, "right") for name in ("cycles", "FLOP/B", "TFLOPS", "roof", "of it")),
            ("roof of", "left"),
        ],
        [
            [
                name,
                count(row["cycles"]),
                f"{row['flops_per_byte']:.2f}",
                f"{row['tflops']:.3f}",
                f"{row['roof_tflops']:.3f}",
                percent(row["tflops"] / row["roof_tflops"]) if row["roof_tflops"] else "",
                row["bound"],
            ]
            for name, row in facts.items()
        ],
    )
    for name, row in facts.items():
        activities = list(next(iter(row["units"].values())))
        print_table(
            f"\n{name}: every cycle of every unit, in percent",
            [("unit", "left"), *((activity, "right") for activity in activities), ("sum", "right")],
            [_line(unit, percentages(shares)) for unit, shares in row["units"].items()],
        )


def _line(unit: str, percentages: dict[str, float]) -> list[str]:
    return [unit, *(f"{value:.1f}" for value in percentages.values()), f"{sum(percentages.values()):.1f}"]
