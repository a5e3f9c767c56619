"""Run every point of a space of designs: a grid or a Latin hypercube over any field, methods and keep ratios.

SPEC is a YAML file, or the name of a shipped example (--list). Results are kept in a store as they come, so the same
command goes on where it was stopped, whatever stopped it. Exit code 1 when a point is quarantined or met a defect: it is
named, and the results are those of all others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "a grid or Latin hypercube over fields, methods and keep ratios; resumes after anything"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", nargs="?", help="a YAML file, or a shipped example")
    parser.add_argument("--list", action="store_true", help="list the shipped examples and end")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a field of SPEC")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for everything that is written")
    add_worker_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON instead of a table")


def add_worker_arguments(parser: argparse.ArgumentParser) -> None:
    """What `sweep` and `search` share."""
    parser.add_argument("--store", type=Path, metavar="DIR", help="store to share between runs (default: in --out)")
    parser.add_argument(
        "--executor", choices=("serial", "processes", "dask"), default="processes", help="(default: processes)"
    )
    parser.add_argument("--workers", type=int, help="of processes, or of a local dask cluster (default: all cores)")
    parser.add_argument("--address", metavar="HOST:PORT", help="an existing dask scheduler")
    parser.add_argument("--retry", action="store_true", help="try quarantined points again")


def run(arguments: argparse.Namespace) -> int:
    from topsieve.cli.exploring import RichWatcher, print_front, say_unmeasured, workers_of
    from topsieve.exploration.spec import SWEEPS, load_sweep
    from topsieve.exploration.store import Store
    from topsieve.exploration.sweep import run_sweep, store_folder
    from topsieve.exploration.sweep_files import summary_text, write_inputs, write_results
    from topsieve.results import made_folder
    from topsieve_sim.errors import InputError

    if arguments.list:
        print("\n".join(SWEEPS.names()))
        return 0
    if arguments.spec is None or arguments.out is None:
        raise InputError("sweep needs a SPEC and --out", allowed=f"a YAML file, {', '.join(SWEEPS.names())}")
    spec = load_sweep(arguments.spec, tuple(arguments.set))
    out = made_folder(arguments.out)
    write_inputs(out, spec.base())
    with RichWatcher() as watcher:
        sweep = run_sweep(
            spec,
            Store(store_folder(out, arguments.store)),
            workers_of(arguments),
            retry=arguments.retry,
            watcher=watcher,
        )
        write_results(sweep, out)
        watcher.say(
            f"{sweep.computed} points computed, {sweep.stored} from the store, {len(sweep.refused)} refused, "
            f"{len(sweep.quarantined)} quarantined"
        )
        say_unmeasured(watcher, sweep)
    if arguments.json:
        print(summary_text(sweep), end="")
    else:
        print_front(sweep)
        print(f"\nwritten to {out}: results.csv, results.json, summary.json, refused.csv")
    return 1 if sweep.quarantined or sweep.failed else 0
