"""Synthesise a unit for FPGA families with yosys; place and route it on ECP5 with nextpnr."""

from __future__ import annotations

import argparse
import sys

from topsieve.cli.unit_arguments import add_unit_arguments

HELP = "what a unit costs on an FPGA and how fast it runs there"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_unit_arguments(parser, default="ecp5")
    parser.add_argument("--target", default="ecp5", metavar="LIST", help="ecp5, ice40, xc7, xcup (default: ecp5)")
    parser.add_argument("--no-place", action="store_true", help="counts after synthesis only")
    parser.add_argument("--seed", type=int, default=1, help="of the placer (default: 1)")
    parser.add_argument("--clock-mhz", type=float, default=100.0, help="what placer and router aim at (default: 100)")


def run(arguments: argparse.Namespace) -> int:
    from topsieve_rtl.units import unit_names
    from topsieve_sim.arch.load import load_config

    if arguments.unit is None:
        print("\n".join(unit_names()))
        return 0
    config = load_config(arguments.accelerator, arguments.set)
    from topsieve_rtl.synthesis import Placement, report_unit, resource_table

    reports = report_unit(
        arguments.unit,
        config,
        [target.strip() for target in arguments.target.split(",")],
        placement=None if arguments.no_place else Placement(arguments.seed, arguments.clock_mhz),
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(resource_table(reports))
    return 0
