"""The arguments that `verilog`, `synth` and `verify` share: which unit, on which machine."""

from __future__ import annotations

import argparse


def add_unit_arguments(parser: argparse.ArgumentParser, default: str, without: str = "list them") -> None:
    """`UNIT` or `--unit UNIT`, `--accelerator` (or `--preset`) with `default`, and `--set`; `without` a unit, what happens."""
    parser.set_defaults(unit=None)
    parser.add_argument(
        "unit", metavar="UNIT", nargs="?", default=argparse.SUPPRESS, help=f"name of a unit (none: {without})"
    )
    parser.add_argument("--unit", dest="unit", metavar="UNIT", default=argparse.SUPPRESS, help="the same")
    parser.add_argument(
        "--accelerator",
        "--preset",
        default=default,
        metavar="NAME",
        help=f"a preset's name or a YAML file (default: {default})",
    )
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a field of it")
