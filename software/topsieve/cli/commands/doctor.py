"""What is installed, what is missing and how to get it. Exit code 1 when a required package is missing."""

from __future__ import annotations

import argparse
import dataclasses
import json

HELP = "what is installed, what is missing and how to get it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    from topsieve.doctor import examine

    findings = examine()
    if arguments.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        group = ""
        for finding in findings:
            if finding.group != group:
                group = finding.group
                print(f"{group}: {finding.purpose}" if group not in {"program", "model"} else group)
            reason = f"{finding.purpose}: " if group in {"program", "model"} else ""
            note = finding.found or f"missing    {reason}{finding.remedy}"
            print(f"  {finding.name:24} {note}")
    return 1 if any(finding.required and not finding.found for finding in findings) else 0
