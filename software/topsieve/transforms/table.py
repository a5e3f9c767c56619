"""The table of `docs/transforms.md`: every transform beside the plain workload on one machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from topsieve.transforms.registry import build
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.engine import simulate
from topsieve_sim.errors import InputError
from topsieve_sim.files import written_whole

START, END = "<!-- table of transforms: start -->", "<!-- table of transforms: end -->"
HEADER = (
    "| transform | attention | measured | passes | tokens run | cycles, plain | cycles | ratio | DRAM bytes, ratio |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


@dataclass(frozen=True)
class Row:
    """One transform: passes, tokens run, cycles and DRAM bytes, each plain and changed."""

    name: str
    attention: str
    effect: str
    passes: tuple[int, int]
    tokens: tuple[int, int]
    cycles: tuple[int, int]
    dram_bytes: tuple[int, int]


def measure(text: str, config: AcceleratorConfig) -> Row:
    """Run the transform `text` on real input, and both of its workloads on the machine `config`."""
    transform = build(text)
    outcome = transform.run()
    workloads = (outcome.plain, outcome.changed)
    plain, changed = (simulate(workload.trace(), config) for workload in workloads)
    return Row(
        text,
        transform.attention,
        outcome.effect,
        (len(outcome.plain.passes), len(outcome.changed.passes)),
        (outcome.plain.query_rows, outcome.changed.query_rows),
        (plain.cycles, changed.cycles),
        (plain.dram_bytes_total, changed.dram_bytes_total),
    )


def markdown(rows: Sequence[Row], machine: str) -> str:
    """The table as Markdown, with the machine it was run on."""
    lines = [
        f"| `{row.name}` | {row.attention} | {row.effect} | {row.passes[0]} to {row.passes[1]} "
        f"| {row.tokens[0]:,} to {row.tokens[1]:,} | {row.cycles[0]:,} | {row.cycles[1]:,} "
        f"| {row.cycles[1] / row.cycles[0]:.2f} | {row.dram_bytes[1] / row.dram_bytes[0]:.2f} |\n"
        for row in rows
    ]
    return f"On `{machine}`:\n\n{HEADER}{''.join(lines)}"


def replace_table(page: Path, table: str) -> None:
    """Put `table` between the marks of `page`.

    Raises
    ------
    InputError
        the page cannot be read or written, or has no marks.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read: {error}", source=str(page)) from error
    marked = re.compile(f"{START}.*{END}", re.DOTALL)
    if not marked.search(text):
        raise InputError("has no place for the table", source=str(page), allowed=f"{START} and {END}")
    with written_whole(page) as stream:
        stream.write(marked.sub(lambda _: f"{START}\n\n{table}\n{END}", text))
