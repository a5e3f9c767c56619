"""Accelerator configurations: list the presets, show one with every field resolved, check a file, print the schema.

`energy` prints what each action of each component costs and how large each component is, as Accelergy reference tables;
edited and saved, the file is a technology: `--set technology=FILE.yaml`.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from topsieve_sim.arch import AcceleratorConfig

HELP = "accelerator presets and files: list, show, check, schema, energy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="names of the presets, with their main numbers")
    show = actions.add_parser("show", help="the fully resolved YAML of a preset or file")
    check = actions.add_parser("check", help="validate a preset or file; says what is wrong and what is allowed")
    energy = actions.add_parser("energy", help="energy by action and area by component, as Accelergy ERT and ART")
    for action in (show, check, energy):
        action.add_argument("accelerator", help="a preset's name or a YAML file")
        action.add_argument(
            "--set", action="append", default=[], metavar="FIELD=VALUE", help="override, e.g. topk.parallelism=8"
        )
    actions.add_parser("schema", help="JSON schema of a configuration file")


def run(arguments: argparse.Namespace) -> int:
    from topsieve_sim.arch.load import config_yaml, json_schema, load_config, preset_names

    if arguments.action == "list":
        for name in preset_names():
            config = load_config(name)
            multipliers = config.dot_product.multipliers + config.weighted_sum.multipliers
            print(
                f"{name:16} {multipliers} multipliers, {config.clock_mhz:g} MHz, capacity {config.capacity} tokens, "
                f"{config.memory.channels} memory channels, {config.topk.selector.value} selector"
            )
    elif arguments.action == "schema":
        print(json.dumps(json_schema(), indent=2))
    else:
        config = load_config(arguments.accelerator, arguments.set)
        if arguments.action == "energy":
            from topsieve_sim.energy import reference_yaml

            print(reference_yaml(config), end="")
        elif arguments.action == "show":
            print(config_yaml(config), end="")
        else:
            _check_names(config)
            print(f"{arguments.accelerator}: valid configuration {config.name}, digest {config.digest}")
    return 0


def _check_names(config: AcceleratorConfig) -> None:
    """Open what the configuration names: its technology and, where one is used, its DRAM."""
    from topsieve_sim.energy import technology_of

    technology_of(config.technology)
    if config.memory.model == "dram":
        from topsieve_sim.closed_loop.memory import machine_memory

        machine_memory(config)
