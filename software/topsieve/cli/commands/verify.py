"""Run random cases of a unit on its RTL and compare every beat with the golden model, to the bit and to the cycle.

Without a unit it is the whole machine: jobs in a memory that stalls at random; what is in memory afterwards, the cycles and
every performance counter. Exit code 1 when any case differs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from topsieve.cli.unit_arguments import add_unit_arguments

MACHINE = "accelerator"
HELP = "the machine's or a unit's RTL against golden model and timing, beat by beat"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_unit_arguments(parser, default="tiny", without="the whole machine")
    parser.add_argument("--list", action="store_true", help="list the units")
    parser.add_argument(
        "--engine", help="python, cxxrtl, icarus or verilator (default: the unit's, which builds soonest)"
    )
    parser.add_argument("--cases", type=int, help="how many (default: the unit's)")
    parser.add_argument("--first-case", type=int, default=0, help="number of the first (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="cases are drawn from (default: 0)")
    parser.add_argument("--waveform", type=Path, metavar="FILE", help="VCD of the first case that differs")


def run(arguments: argparse.Namespace) -> int:
    from topsieve_rtl.units import unit_names
    from topsieve_sim.arch.load import load_config

    if arguments.list:
        print("\n".join(unit_names()))
        return 0
    config = load_config(arguments.accelerator, arguments.set)
    from topsieve.cli.heartbeat import heartbeat
    from topsieve_rtl.verify import verify

    verification = verify(
        arguments.unit or MACHINE,
        config,
        cases=arguments.cases,
        engine=arguments.engine,
        seed=arguments.seed,
        first_case=arguments.first_case,
        progress=lambda done, of: print(f"{done} of {of} cases", file=sys.stderr, flush=True),
        stage=heartbeat,
        waveform=arguments.waveform,
    )
    print(verification)
    for mismatch in verification.shown:
        print(f"case {mismatch.case}: {mismatch.divergence}")
    return 1 if verification.mismatches else 0
