"""Explain a run, a comparison or a sweep: one HTML page, pictures as PNG and PDF, and the numbers in the terminal.

RUN is a report.json, a folder that `topsieve simulate --out` or `topsieve compare` wrote, one method's folder in it, or a
folder of `topsieve sweep` or `topsieve search`. The page, report.html, needs no server and no network.
With --rows INPUT, the trace that was run, one layer is told row by row: a Perfetto trace with memory bandwidth and queue
fill, and a picture of both.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topsieve.report_page import SweepResults
    from topsieve_sim.report import Report

HELP = "an HTML page and pictures that explain a run, a comparison or a sweep"

FORMS = ("png", "pdf")
PAGE = "report.html"
COMPARISON = "comparison.json"
NO_PICTURES = "no pictures: matplotlib is not installed (pip install 'topsieve[plot]')"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="a report.json, or the folder of a run, comparison or sweep"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for page and pictures (default: RUN/report)")
    parser.add_argument("--rows", metavar="INPUT", help="the trace that was run: tell one layer of it row by row")
    parser.add_argument("--layer", type=int, default=0, help="of --rows (default: 0)")
    parser.add_argument("--sequence", type=int, default=0, help="of --rows (default: 0)")
    parser.add_argument("--step", type=int, default=0, help="generated token of --rows (default: 0)")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON instead of tables")


def run(arguments: argparse.Namespace) -> int:
    from topsieve.report_page import is_sweep

    return _sweep(arguments) if is_sweep(arguments.run) else _reports(arguments)


def _reports(arguments: argparse.Namespace) -> int:
    """A run or a comparison."""
    from topsieve.report_page import comparison_page, run_page, write_page
    from topsieve.results import made_folder

    reports = read_run(arguments.run)
    results, refused, gpu = _comparison(arguments.run)
    folder = arguments.run if arguments.run.is_dir() else arguments.run.parent
    out = made_folder(arguments.out or folder / "report")
    rows = _rows(arguments, next(iter(reports.values())), out) if arguments.rows else []
    page = comparison_page(reports, results, refused, gpu) if results else run_page(*next(iter(reports.items())))
    write_page(page, out / PAGE)
    written = [PAGE, *_pictures(reports, results, out), *rows]
    if arguments.json:
        print(json.dumps(_facts(reports), indent=1))
    else:
        _show(reports)
        print(f"written to {out}: {', '.join(written)}")
    return 0


def _sweep(arguments: argparse.Namespace) -> int:
    """A sweep or a search."""
    from topsieve.report_page import read_sweep, sweep_page, write_page
    from topsieve.results import made_folder
    from topsieve_sim.errors import InputError

    if arguments.rows:
        raise InputError("a sweep has no rows to tell", source="--rows", allowed="with the folder of a run")
    sweep = read_sweep(arguments.run)
    out = made_folder(arguments.out or arguments.run / "report")
    page = sweep_page(sweep)
    write_page(page, out / PAGE)
    written = [PAGE, *_sweep_pictures(sweep, page["points"]["axes"], out)]
    if arguments.json:
        chosen = {key: sweep.summary[key] for key in ("name", "objectives", "least", "front")}
        print(json.dumps({**chosen, "points": len(sweep.rows)}, indent=1))
    else:
        _show_front(sweep)
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

    allowed = "a report.json, or a folder that topsieve simulate --out, topsieve compare or topsieve sweep wrote"
    if not run.is_dir():
        if not run.exists():
            raise InputError("no such run", value=str(run), allowed=allowed)
        return _named(load_report(run))
    if (run / REPORT_FILE).exists():
        return _named(load_report(run / REPORT_FILE))
    if not (run / COMPARISON).exists():
        raise InputError("no report in this folder", source=str(run), allowed=allowed)
    methods = [result["method"] for result in _comparison(run)[0]]
    return {method: load_report(method_folder(run, method) / REPORT_FILE) for method in methods}


def _comparison(run: Path) -> tuple[list[dict[str, Any]], dict[str, str], str]:
    """The results of a comparison, the methods that it refused, and the GPU beside it; nothing of what is none.

    Raises
    ------
    InputError
        the file is not what `topsieve compare` writes.
    """
    from topsieve.compare import REFUSED_KEY, REPORT_FILE
    from topsieve.gpu import GPU_KEY, gpu_columns
    from topsieve_sim.errors import InputError

    path = run / COMPARISON
    if not path.exists() or (run / REPORT_FILE).exists():
        return [], {}, ""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        results = content["results"]
        for result in results:
            for metric in result.get("metrics", ()):
                # Each measure has its number; what is missing would otherwise be found halfway through the page.
                float(result["fidelity"][metric["name"]]), str(metric["title"]), str(metric["label"])
            if GPU_KEY in result:
                gpu_columns(result[GPU_KEY])
        if not [result["method"] for result in results]:
            raise ValueError("no method")
        gpu = content.get("inputs", {}).get(GPU_KEY, {}).get("title", "")
        return results, content.get(REFUSED_KEY, {}), str(gpu)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError("not a comparison", source=str(path)) from error


def _named(report: Report) -> dict[str, Report]:
    return {f"{report.model} {report.method}".strip(): report}


def _pictures(reports: dict[str, Report], results: Sequence[Mapping[str, Any]], out: Path) -> list[str]:
    """Draw everything; the names of the files."""
    if importlib.util.find_spec("matplotlib") is None:
        return [NO_PICTURES]
    from topsieve.compare import method_folder
    from topsieve.explain import layer_points, peaks, roofline, run_point, stall_chart, timeline_chart
    from topsieve.results import made_folder

    first = next(iter(reports.values()))
    alone = len(reports) == 1
    points = [run_point(name, report) for name, report in reports.items()]
    layers = layer_points(first) if alone and len(first.layers) > 1 else []
    written = _draw(roofline(points, peaks(first), first.accelerator.name, layers), out / "roofline")
    written += _comparison_pictures(reports, results, out) if results else []
    for name, report in reports.items():
        place = out if alone else made_folder(method_folder(out, name))
        machine = report.accelerator.name
        written += _draw(stall_chart(report, f"{name} on {machine}: where the cycles go"), place / "stalls")
        written += _draw(timeline_chart(report, f"{name} on {machine}: when each unit works"), place / "timeline")
    for result in results:
        survival = result.get("survival")
        if survival and survival["words"]:
            stem = method_folder(out, result["method"]) / "survival"
            written += _in_forms(stem, _survival_drawer(survival, result["method"]))
    return [str(path.relative_to(out)) for path in written]


def _comparison_pictures(reports: dict[str, Report], results: Sequence[Mapping[str, Any]], out: Path) -> list[Path]:
    """Energy by component and, where quality was measured, quality against cycles."""
    from topsieve.plots import plot_energy, plot_fidelity_against_cycles

    machine = next(iter(reports.values())).accelerator.name
    energy = {name: report.component_energy_pj() for name, report in reports.items()}
    written = _in_forms(out / "energy", lambda path: plot_energy(energy, path, machine))
    metric = next(iter(results[0].get("metrics", ())), None)
    if metric:
        cycles = {name: report.cycles for name, report in reports.items()}
        quality = {result["method"]: result["fidelity"][metric["name"]] for result in results}
        written += _in_forms(
            out / "quality-cycles",
            lambda path: plot_fidelity_against_cycles(cycles, quality, path, machine, metric["label"]),
        )
    return written


def _survival_drawer(survival: Mapping[str, Any], method: str) -> Callable[[Path], None]:
    from topsieve.plots import plot_survival

    return lambda path: plot_survival(survival["words"], survival["layers"], path, method)


def _sweep_pictures(sweep: SweepResults, axes: Sequence[str], out: Path) -> list[str]:
    """Draw the front over the two `axes`; the names of the files."""
    if importlib.util.find_spec("matplotlib") is None:
        return [NO_PICTURES]
    from topsieve.plots import plot_front

    x, y = (sweep.values(name) for name in axes)
    titles = {column["key"]: f"{column['heading']} ({column['unit']})".replace(" ()", "") for column in sweep.columns()}
    labels, name = (titles[axes[0]], titles[axes[1]]), sweep.summary["name"]
    written = _in_forms(out / "front", lambda path: plot_front(x, y, sweep.front, path, labels, name))
    return [path.name for path in written]


def _in_forms(stem: Path, draw: Callable[[Path], None]) -> list[Path]:
    paths = [stem.with_suffix(f".{form}") for form in FORMS]
    for path in paths:
        draw(path)
    return paths


def _draw(figure: Any, path: Path) -> list[Path]:
    from topsieve.plots import write_figure

    return _in_forms(path, lambda each: write_figure(figure, each))


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


def _show_front(sweep: SweepResults) -> None:
    """The points that no other beats in all objectives."""
    from topsieve.cli.show import print_table

    columns = [column["key"] for column in sweep.columns()]
    print_table(
        f"{sweep.summary['name']}: {len(sweep.front)} of {len(sweep.rows)} points are on the front of "
        + ", ".join(sweep.objectives),
        [(name, "left" if place == 0 else "right") for place, name in enumerate(columns)],
        [[_cell(value) for value in sweep.rows[place]] for place in sweep.front],
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.6g}" if isinstance(value, float) else str(value)


def _line(unit: str, percentages: dict[str, float]) -> list[str]:
    return [unit, *(f"{value:.1f}" for value in percentages.values()), f"{sum(percentages.values()):.1f}"]
