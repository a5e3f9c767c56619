"""Write a unit of the accelerator as a folder that needs no Python: Verilog, testbench with vectors, core file, README."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

HELP = "a unit as Verilog with testbench, vectors and core file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("unit", metavar="UNIT", nargs="?", help="name of a unit (none: list them)")
    parser.add_argument("--accelerator", default="tiny", help="a preset's name or a YAML file (default: tiny)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a field of it")
    parser.add_argument("--cases", type=int, default=20, help="test cases in the vectors (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="they are drawn from (default: 0)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder (default: build/UNIT)")


def run(arguments: argparse.Namespace) -> int:
    from topsieve_rtl.units import unit_names
    from topsieve_sim.arch.load import load_config

    if arguments.unit is None:
        print("\n".join(unit_names()))
        return 0
    config = load_config(arguments.accelerator, arguments.set)
    from topsieve_rtl.verilog.package import emit_unit

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
    )
    for path in package.files:
        print(path)
    return 0
