"""The successor's features, alone and on top of each other, over the published machine on the same traces.

Without options tables are printed. --out writes the page docs/successor-ladder.md; --json gives JSON instead.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HELP = "what each feature of the successor gains over the published machine, and costs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="FILE", help="write Markdown (with --json: JSON) to FILE")
    parser.add_argument("--json", action="store_true", help="JSON, with full digits")


def run(arguments: argparse.Namespace) -> int:
    from topsieve.cli.show import print_table
    from topsieve_sim.errors import InputError
    from topsieve_sim.files import written_whole
    from topsieve_sim.ladder import as_json, climb, markdown
    from topsieve_sim.ladder.document import COLUMNS, rows

    out = arguments.out
    # Known before the work, which takes seconds.
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError("cannot write", source=str(out), allowed="a file in a folder that exists")
    ladders = climb(progress=lambda done, of, title: print(f"{done} of {of}: {title}", file=sys.stderr, flush=True))
    if out is None and not arguments.json:
        for ladder in ladders:
            where = "in closed loop with the DRAM" if ladder.in_loop else "ideal memory"
            columns = [(name, "left" if name == "machine" else "right") for name in COLUMNS]
            print_table(f"{ladder.title}; {where}", columns, rows(ladder))
            print()
        return 0
    text = as_json(ladders) if arguments.json else markdown(ladders)
    if out is None:
        print(text, end="")
    else:
        with written_whole(out) as stream:
            stream.write(text)
        print(f"written to {out}")
    return 0
