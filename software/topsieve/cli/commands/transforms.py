"""Transforms that keep the tokens and change what attention must do: list, describe, trace, compare.

A transform is written NAME or NAME:PARAMETER=VALUE,PARAMETER=VALUE. `trace` runs its algorithm on a real model and text
and writes what attention was asked to do, for `topsieve simulate`. `table` runs all of them, with and without.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

HELP = "transforms of the workload: list, describe, trace for `simulate`, table of all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="all transforms, a line each")
    listed.add_argument("--json", action="store_true", help="print JSON, with parameters")
    show = actions.add_parser("show", help="describe one with its parameters")
    show.add_argument("name", metavar="NAME")
    trace = actions.add_parser("trace", help="run one and write the trace of its attention workload")
    trace.add_argument("transform", metavar="NAME", help="a transform, with parameters")
    trace.add_argument("--out", type=Path, required=True, metavar="FILE", help="trace file, ending in .npz")
    trace.add_argument("--plain", action="store_true", help="write the workload without the transform instead")
    table = actions.add_parser(
        "table", help="every transform on real input, on an accelerator, beside the plain workload"
    )
    table.add_argument("--accelerator", default="spatten", help="a preset's name or a YAML file (default: spatten)")
    table.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a field of it")
    table.add_argument("--only", metavar="NAMES", help="these only, with parameters, separated by spaces")
    table.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the table into this page, between its marks; with --only, its rows into the table there",
    )


def run(arguments: argparse.Namespace) -> int:
    return {"list": _list, "show": _show, "trace": _trace, "table": _table}[arguments.action](arguments)


def _list(arguments: argparse.Namespace) -> int:
    from topsieve.transforms import describe, transform_names

    found = [describe(name) for name in transform_names()]
    if arguments.json:
        rows = [
            {
                "name": info.name,
                "summary": info.summary,
                "parameters": [dataclasses.asdict(parameter) for parameter in info.parameters],
            }
            for info in found
        ]
        print(json.dumps(rows, indent=2))
    else:
        for info in found:
            print(f"{info.name:24} {info.summary}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from topsieve.transforms import describe

    info = describe(arguments.name)
    print(f"{info.name}: {info.summary}\n\n{info.description}\n\nDefaults:")
    for parameter in info.parameters:
        print(f"  {parameter.name} = {parameter.default}  ({parameter.type})")
    return 0


def _trace(arguments: argparse.Namespace) -> int:
    from topsieve.transforms import build
    from topsieve_sim.errors import InputError
    from topsieve_sim.trace import save_trace

    out = arguments.out
    # Known before the work, which takes seconds.
    if out.suffix != ".npz" or out.is_dir() or not out.parent.is_dir():
        raise InputError("cannot write", source=str(out), allowed="a file ending in .npz in a folder that exists")
    outcome = build(arguments.transform).run()
    workload = outcome.plain if arguments.plain else outcome.changed
    trace = workload.trace()
    save_trace(trace, out)
    print(f"{workload.method} on {trace.model}: {len(workload.passes)} passes, {workload.query_rows} tokens")
    print(f"  {outcome.effect}")
    print(f"written to {out}")
    return 0


def _table(arguments: argparse.Namespace) -> int:
    import sys

    from topsieve.transforms import transform_names
    from topsieve.transforms.table import markdown, measure, replace_table, row_names
    from topsieve_sim.arch.load import load_config
    from topsieve_sim.errors import InputError

    if arguments.out is not None and not arguments.out.is_file():
        raise InputError("no such page", source=str(arguments.out), allowed="a page with a table of transforms")
    names = row_names()
    if arguments.only is not None:
        names = tuple(arguments.only.split())
        if not names:
            raise InputError("no transform given", field="--only", allowed=", ".join(transform_names()))
    config = load_config(arguments.accelerator, arguments.set)
    rows = []
    for name in names:
        rows.append(measure(name, config))
        print(f"{len(rows)} of {len(names)}: {name}", file=sys.stderr, flush=True)
    text = markdown(rows, config.name)
    if arguments.out is None:
        print(text, end="")
    else:
        replace_table(arguments.out, text, rows_only=arguments.only is not None)
        print(f"written to {arguments.out}")
    return 0
