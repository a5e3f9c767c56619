"""List the token reduction methods, or describe one with its parameters.

A method is written NAME or NAME:PARAMETER=VALUE,PARAMETER=VALUE wherever a command takes one; lists are 30/20/10.
"""

from __future__ import annotations

import argparse
import dataclasses
import json

HELP = "list the reduction methods, or describe one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="describe this method")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    from topsieve.methods import describe, method_names

    if arguments.name is None:
        found = [describe(name) for name in method_names()]
    else:
        found = [describe(arguments.name)]
    if arguments.json:
        listed = [dataclasses.asdict(info) for info in found]
        print(json.dumps(listed if arguments.name is None else listed[0], indent=2))
    elif arguments.name is None:
        for info in found:
            print(f"{info.name:12} {info.summary}")
    else:
        info = found[0]
        print(f"{info.name}: {info.summary}\n\n{info.description}\n")
        print(f"Defined by {info.target}. Defaults:")
        for parameter in info.parameters:
            print(f"  {parameter.name} = {parameter.default}  ({parameter.type})")
    return 0
