"""Search a space of designs for those that no other beats in all objectives at once.

SPEC is a YAML file, or the name of a shipped example (--list). An optimiser (Optuna; the extra `sweep`) proposes designs in
batches; a journal in --out remembers them, so the same command goes on where it was stopped, and with more trials. Exit
code 1 when a design is quarantined or met a defect: it is named, and the results are those of all others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from topsieve.cli.commands.sweep import add_worker_arguments

HELP = "an optimiser's best designs in cycles, energy, area and quality; resumes after anything"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("spec", metavar="SPEC", nargs="?", help="a YAML file, or a shipped example")
    parser.add_argument("--list", action="store_true", help="list the shipped examples and end")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a field of SPEC")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for everything that is written")
    add_worker_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    from topsieve.cli.exploring import RichWatcher, print_front, say_unmeasured, workers_of
    from topsieve.exploration.spec import SEARCHES, load_search
    from topsieve.exploration.store import Store
    from topsieve.exploration.sweep import store_folder
    from topsieve.exploration.sweep_files import summary_text, write_inputs, write_results
    from topsieve.results import made_folder
    from topsieve_sim.errors import InputError

    if arguments.list:
        print("\n".join(SEARCHES.names()))
        return 0
    if arguments.spec is None or arguments.out is None:
        raise InputError("search needs a SPEC and --out", allowed=f"a YAML file, {', '.join(SEARCHES.names())}")
    spec = load_search(arguments.spec, tuple(arguments.set))

    from topsieve.exploration.search import require_results, run_search

    out = made_folder(arguments.out)
    write_inputs(out, spec.base())
    with RichWatcher() as watcher:
        store = Store(store_folder(out, arguments.store))
        found = require_results(
            run_search(spec, out, store, workers_of(arguments), retry=arguments.retry, watcher=watcher)
        )
        write_results(found, out)
        watcher.say(f"{len(found.measured)} designs measured, {len(found.refused)} refused")
        say_unmeasured(watcher, found)
    if arguments.json:
        print(summary_text(found), end="")
    else:
        print_front(found)
        print(f"\nwritten to {out}: results.csv, results.json, summary.json, refused.csv")
    return 1 if found.quarantined or found.failed else 0
