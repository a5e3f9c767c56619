"""Write a unit of the accelerator as a folder that needs no Python: Verilog, testbench with vectors, core file, README."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from topsieve.cli.unit_arguments import add_unit_arguments

if TYPE_CHECKING:
    from topsieve_rtl.synthesis import Report
    from topsieve_sim.arch import AcceleratorConfig

HELP = "a unit as Verilog with testbench, vectors and core file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_unit_arguments(parser, default="tiny")
    parser.add_argument("--cases", type=int, default=20, help="test cases in the vectors (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="they are drawn from (default: 0)")
    parser.add_argument(
        "--resources",
        default="ecp5",
        metavar="LIST",
        help="families whose resources the README states: ecp5, ice40, xc7, xcup, or none (default: ecp5)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder (default: build/UNIT)")


def run(arguments: argparse.Namespace) -> int:
    from topsieve_rtl.units import unit_names
    from topsieve_sim.arch.load import load_config

    if arguments.unit is None:
        print("\n".join(unit_names()))
        return 0
    config = load_config(arguments.accelerator, arguments.set)
    from topsieve_rtl.verilog.package import emit_unit

    reports = [] if arguments.resources == "none" else _resources(arguments.unit, config, arguments.resources)
    # In the files' headers: what to type again. Where the files went is left out, or equal files would differ.
    words = ["topsieve", "verilog", arguments.unit, "--accelerator", Path(arguments.accelerator).name]
    words += [part for override in arguments.set for part in ("--set", override)]
    words += ["--cases", str(arguments.cases), "--seed", str(arguments.seed)]
    package = emit_unit(
        arguments.unit,
        config,
        arguments.out or Path("build") / arguments.unit,
        command_line=shlex.join(words),
        cases=arguments.cases,
        seed=arguments.seed,
        reports=reports,
    )
    for path in package.files:
        print(path)
    return 0


def _resources(unit: str, config: AcceleratorConfig, families: str) -> list[Report]:
    from topsieve_rtl.synthesis import report_unit

    return report_unit(
        unit, config, families.split(","), placement=None, progress=lambda line: print(line, file=sys.stderr)
    )
