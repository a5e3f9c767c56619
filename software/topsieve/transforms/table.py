"""The table of `docs/transforms.md`: every transform beside the plain workload on one machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from topsieve.transforms.registry import build, transform_names
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.engine import simulate
from topsieve_sim.errors import InputError
from topsieve_sim.files import written_whole
from topsieve_sim.report import Report
from topsieve_sim.trace.ops import QueryKey

START, END = "<!-- table of transforms: start -->", "<!-- table of transforms: end -->"
HEADER = (
    "| transform | attention | measured | passes | tokens run | attention cycles | ratio | all cycles, ratio "
    "| DRAM bytes, ratio |\n|---|---|---|---|---|---|---|---|---|\n"
)

# Parameters other than the defaults whose rows stand behind their transform's own.
VARIANTS = {"copyspec": ("window=3",), "eqspec": ("window=48",), "simpletool": ("shared=false",)}


@dataclass(frozen=True)
class Row:
    """One transform: passes, tokens run, cycles of attention and of everything, DRAM bytes; each plain and changed."""

    name: str
    attention: str
    effect: str
    passes: tuple[int, int]
    tokens: tuple[int, int]
    attention_cycles: tuple[int, int]
    cycles: tuple[int, int]
    dram_bytes: tuple[int, int]


def row_names() -> tuple[str, ...]:
    """The rows of the page in order, as `build` reads them: every transform, with its `VARIANTS`."""
    return tuple(
        text for name in transform_names() for text in (name, *(f"{name}:{more}" for more in VARIANTS.get(name, ())))
    )


def measure(text: str, config: AcceleratorConfig) -> Row:
    """Run the transform `text` on real input, and both of its workloads on the machine `config`."""
    transform = build(text)
    outcome = transform.run()
    plain, changed = (simulate(workload.trace(), config) for workload in (outcome.plain, outcome.changed))
    return Row(
        text,
        transform.attention,
        outcome.effect,
        (len(outcome.plain.passes), len(outcome.changed.passes)),
        (outcome.plain.query_rows, outcome.changed.query_rows),
        (_attention_cycles(plain), _attention_cycles(changed)),
        (plain.cycles, changed.cycles),
        (plain.dram_bytes_total, changed.dram_bytes_total),
    )


def markdown(rows: Sequence[Row], machine: str) -> str:
    """The table as Markdown, with the machine it was run on."""
    lines = [
        f"| `{row.name}` | {row.attention} | {row.effect} | {_change(row.passes)} | {_change(row.tokens)} "
        f"| {_change(row.attention_cycles)} | {_ratio(row.attention_cycles)} | {_ratio(row.cycles)} "
        f"| {_ratio(row.dram_bytes)} |\n"
        for row in rows
    ]
    return f"On `{machine}`:\n\n{HEADER}{''.join(lines)}"


def _attention_cycles(report: Report) -> int:
    """Cycles of whole attention groups, which stand in the rows of their first operation."""
    return sum(row.cycles for row in report.operations if row.kind == QueryKey.kind)


def _change(pair: tuple[int, int]) -> str:
    return f"{pair[0]:,} to {pair[1]:,}" if pair[0] != pair[1] else f"{pair[0]:,}"


def _ratio(pair: tuple[int, int]) -> str:
    return f"{pair[1] / pair[0]:.2f}"


def replace_table(page: Path, table: str, *, rows_only: bool = False) -> None:
    """Put `table` between the marks of `page`; with `rows_only`, its rows into the table that is there.

    A row replaces the one of the same transform and parameters; a new one goes behind the last of its transform.

    Raises
    ------
    InputError
        the page cannot be read or written, has no marks, or its table is of another form or machine.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read: {error}", source=str(page)) from error
    marked = re.search(f"{START}(.*){END}", text, re.DOTALL)
    if marked is None:
        raise InputError("has no place for the table", source=str(page), allowed=f"{START} and {END}")
    if rows_only:
        table = _merged(marked[1].strip(), table, str(page))
    with written_whole(page) as stream:
        stream.write(f"{text[: marked.start()]}{START}\n\n{table.strip()}\n\n{END}{text[marked.end() :]}")


def _merged(old: str, new: str, source: str) -> str:
    heads, rows = zip(*(_split(table) for table in (old, new)), strict=True)
    if heads[0] != heads[1]:
        raise InputError("holds a table of another form or machine", source=source, allowed="a table of all transforms")
    merged = rows[0]
    for name, line in rows[1].items():
        names = list(merged)
        like = [index for index, known in enumerate(names) if known.partition(":")[0] == name.partition(":")[0]]
        place = len(names) if name in merged or not like else like[-1] + 1
        order = [*names[:place], *([] if name in merged else [name]), *names[place:]]
        merged = {known: line if known == name else merged[known] for known in order}
    return "\n".join((heads[0], *merged.values()))


def _split(table: str) -> tuple[str, dict[str, str]]:
    """What stands above the rows, and each row by its name."""
    lines = table.strip().split("\n")
    rows = {match[1]: line for line in lines if (match := re.match(r"\| `([^`]*)` \|", line))}
    return "\n".join(line for line in lines if line not in rows.values()).strip(), rows
