"""Run a trace on an accelerator, cycle by cycle.

INPUT is a trace file (written by `topsieve compare` or `save_trace`), the name of a published workload
(`topsieve simulate --list`), or a CSV in the format of the SpAtten authors' workloads.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "a trace file, a published workload or an authors' CSV on an accelerator"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="INPUT", nargs="?", help="a trace file, a workload's name, or a CSV")
    parser.add_argument("--list", action="store_true", help="list the published workloads and end")
    parser.add_argument("--accelerator", default="spatten", help="a preset's name or a YAML file (default: spatten)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a field of it")
    parser.add_argument(
        "--seed", type=int, default=0, help="draws the scores that the trace does not hold (default: 0)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for report.json, CSV tables, accelerator.yaml, ERT.yaml, ART.yaml, Perfetto trace",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    from topsieve.cli.inputs import read_trace
    from topsieve.cli.show import print_report
    from topsieve.results import made_folder
    from topsieve_sim.arch.load import dump_config, load_config
    from topsieve_sim.energy import write_accelergy
    from topsieve_sim.engine import simulate
    from topsieve_sim.errors import InputError
    from topsieve_sim.report import write_csv, write_perfetto
    from topsieve_sim.trace import WORKLOADS

    if arguments.list:
        print("\n".join(WORKLOADS))
        return 0
    if arguments.input is None:
        raise InputError("simulate needs an INPUT", allowed=f"a trace file, a CSV, {', '.join(WORKLOADS)}")
    config = load_config(arguments.accelerator, arguments.set)
    trace = read_trace(arguments.input)
    # Made before the work, so that a folder that cannot be written is known at once.
    out = made_folder(arguments.out) if arguments.out else None
    report = simulate(trace, config, seed=arguments.seed)
    if out:
        report.write_json(out / "report.json")
        write_csv(report, out)
        write_perfetto(report, out / "timeline.perfetto-trace")
        dump_config(config, out / "accelerator.yaml")
        write_accelergy(config, out)
    if arguments.json:
        print(report.to_json(), end="")
    else:
        print_report(report)
        if out:
            print(f"written to {out}")
    return 0
