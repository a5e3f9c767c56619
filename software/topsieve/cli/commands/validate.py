"""Every published number that can be checked, beside ours: equal, agrees or misses, and why.

Without options a table is printed. --out writes the page docs/validation.md; --json gives JSON instead, printed or written.
Exit code 1 when a row that must be exact is not.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from topsieve_sim.validation import Validation

HELP = "published numbers beside ours, with ratios and misses"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--accelerator", default="spatten", help="a preset's name or a YAML file (default: spatten)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a field of it")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write Markdown (with --json: JSON) to FILE")
    parser.add_argument("--json", action="store_true", help="JSON, with full digits")


def run(arguments: argparse.Namespace) -> int:
    from topsieve_sim.errors import InputError
    from topsieve_sim.files import written_whole
    from topsieve_sim.validation import Workbench, as_json, markdown, validate

    out = arguments.out
    # Known before the work, which takes seconds.
    if out is not None and (out.is_dir() or not out.parent.is_dir()):
        raise InputError("cannot write", source=str(out), allowed="a file in a folder that exists")
    bench = Workbench(arguments.accelerator, tuple(arguments.set))
    validation = validate(
        bench, lambda done, of, title: print(f"{done} of {of} sections; {title}", file=sys.stderr, flush=True)
    )
    if out is None and not arguments.json:
        _print(validation)
    else:
        text = as_json(validation) if arguments.json else markdown(validation)
        if out is None:
            print(text, end="")
        else:
            with written_whole(out) as stream:
                stream.write(text)
            print(f"written to {out}")
    for result in validation.exact_misses:
        print(
            f"not exact: {result.check.name}: published {result.check.published}, ours {result.ours}", file=sys.stderr
        )
    return 1 if validation.exact_misses else 0


def _print(validation: Validation) -> None:
    from topsieve.cli.show import print_table
    from topsieve_sim.validation.document import COLUMNS, cells, verdict_counts

    numbers = ("published", "ours", "ratio")
    shown = ("quantity", "unit", *numbers, "verdict", "status")
    columns = [(name, "right" if name in numbers else "left") for name in shown]
    for section, results in validation.sections:
        rows = [dict(zip(COLUMNS, cells(validation, result), strict=True)) for result in results]
        print_table(section.title, columns, [[row[name] for name in shown] for row in rows])
        print()
    print(", ".join(f"{count} {verdict.value}" for verdict, count in verdict_counts(validation).items()))
