"""The accelerator and its rivals on one trace: cycles, bytes, throughput and energy beside the error of each.

INPUT is what `topsieve simulate` takes. Every rival gets the accelerator's multipliers, bandwidth, clock and number formats.
A rival is written NAME or NAME:KNOB=VALUE,KNOB=VALUE; --list shows names and knobs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from topsieve_sim.rivals import Comparison

HELP = "the accelerator and its published rivals side by side on one trace"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="INPUT", nargs="?", help="a trace file, a workload's name, or a CSV")
    parser.add_argument("--list", action="store_true", help="list the rivals with their knobs, the platforms, and end")
    parser.add_argument("--rivals", metavar="LIST", help="rivals, separated by commas (default: one of each)")
    parser.add_argument("--accelerator", default="spatten", help="a preset's name or a YAML file (default: spatten)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a field of it")
    parser.add_argument(
        "--dense", metavar="INPUT", help="what the rivals run instead: the same model without a cascade"
    )
    parser.add_argument("--drawn", action="store_true", help="draw normal operands where a trace has none")
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn (default: 0)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write JSON to FILE as well")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    from topsieve.cli.inputs import read_trace
    from topsieve.compare import split_methods
    from topsieve_sim.arch import load_config
    from topsieve_sim.errors import InputError
    from topsieve_sim.files import written_whole
    from topsieve_sim.rivals import DEFAULT, build_all, compare, runnable
    from topsieve_sim.trace import WORKLOADS

    if arguments.list:
        _print_list()
        return 0
    if arguments.input is None:
        raise InputError("rivals needs an INPUT", allowed=f"a trace file, a CSV, {', '.join(WORKLOADS)}")
    if arguments.seed < 0:
        raise InputError("wrong value", source="--seed", value=arguments.seed, allowed="at least 0")
    out = arguments.out
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError("cannot write", source=str(out), allowed="a file in a folder that exists")
    entrants = build_all(DEFAULT if arguments.rivals is None else split_methods(arguments.rivals))
    trace, config = read_trace(arguments.input), load_config(arguments.accelerator, arguments.set)
    dense = None if arguments.dense is None else read_trace(arguments.dense)
    if arguments.rivals is None:
        known = runnable(entrants, dense or trace, arguments.drawn)
        left_out = [entrant.label for entrant in entrants if entrant not in known]
        if left_out:
            print(f"left out, the trace holds no operands (--drawn draws some): {', '.join(left_out)}", file=sys.stderr)
        entrants = known
    comparison = compare(
        trace,
        config,
        entrants,
        dense=dense,
        drawn=arguments.drawn,
        seed=arguments.seed,
        progress=lambda done, of, name: print(f"{done} of {of}: {name}", file=sys.stderr, flush=True),
    )
    if arguments.json:
        print(comparison.to_json(), end="")
    else:
        _print(comparison)
    if out is not None:
        with written_whole(out) as stream:
            stream.write(comparison.to_json())
        print(f"written to {out}", file=sys.stderr)
    return 0


def _print(comparison: Comparison) -> None:
    from topsieve.cli.show import count, percent, print_table, quantity

    def shown(value: float | None, text: str) -> str:
        return "–" if value is None else text

    columns = ("machine", "cycles", "latency", "DRAM", "GOP/s", "utilised", "energy", "error", "basis")
    print_table(
        f"{comparison.model} ({comparison.method}), {quantity(comparison.dense_flops, 'FLOP')} dense attention",
        [(name, "left" if name in ("machine", "basis") else "right") for name in columns],
        [
            [
                row.machine,
                shown(row.cycles, count(row.cycles or 0)),
                f"{row.latency_us:,.1f} us",
                quantity(row.dram_bytes, "B"),
                f"{row.effective_gops:,.0f}",
                shown(row.utilisation, percent(row.utilisation or 0)),
                shown(row.energy_pj, quantity((row.energy_pj or 0) * 1e-12, "J")),
                shown(row.output_error, f"{row.output_error or 0:.2%}"),
                row.basis,
            ]
            for row in comparison.rows
        ],
    )
    for note in comparison.notes:
        print(f"note: {note}")


def _print_list() -> None:
    from topsieve.cli.show import print_table
    from topsieve_sim.rivals import RIVALS, load_platform, platform_names

    print_table(
        "rivals",
        [("name", "left"), ("machine", "left"), ("basis", "left"), ("knob", "left"), ("default", "left"), ("", "left")],
        [
            [
                *((entrant.name, entrant.title, entrant.basis.value) if number == 0 else ("", "", "")),
                knob,
                str(info.default),
                info.description or "",
            ]
            for entrant in RIVALS.values()
            for number, (knob, info) in enumerate(entrant.model_fields.items())
        ],
    )
    print()
    print_table(
        "platforms",
        [
            ("name", "left"),
            ("", "left"),
            ("machine", "left"),
            ("GFLOP/s", "right"),
            ("GB/s", "right"),
            ("board W", "right"),
        ],
        [
            [
                name,
                platform.kind,
                platform.title,
                f"{platform.peak_gflops.value:,.0f}",
                f"{platform.bandwidth_gb_per_s.value:,.1f}",
                f"{platform.board_power_w.value:,.0f}" if platform.board_power_w else "",
            ]
            for name, platform in ((name, load_platform(name)) for name in platform_names())
        ],
    )
