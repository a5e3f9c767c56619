"""All sections in order, run, and written as Markdown or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from topsieve_sim.arch import load_config
from topsieve_sim.validation import (
    bert,
    eighth,
    end_to_end,
    figure14,
    gpt2,
    hbm,
    in_loop,
    power_area,
    rivals,
    selection,
)
from topsieve_sim.validation.checks import AGREEMENT, Result, Section, Status, Unmodelled, Verdict, run_section
from topsieve_sim.validation.workbench import Workbench

SECTIONS: tuple[Section, ...] = (
    *gpt2.SECTIONS,
    *in_loop.SECTIONS,
    *end_to_end.SECTIONS,
    *selection.SECTIONS,
    *bert.SECTIONS,
    *figure14.SECTIONS,
    *hbm.SECTIONS,
    *power_area.SECTIONS,
    *eighth.SECTIONS,
    *rivals.SECTIONS,
)
UNMODELLED: tuple[Unmodelled, ...] = eighth.UNMODELLED

PUBLISHED_MACHINE = "spatten"

Progress = Callable[[int, int, str], None]

COLUMNS = ("quantity", "unit", "published", "ours", "ratio", "verdict", "status", "source", "reason for a miss")


@dataclass(frozen=True)
class Validation:
    """Every row, run on one machine.

    explained : whether it is the published machine, for which the reasons were written.
    """

    accelerator: str
    accelerator_digest: str
    explained: bool
    sections: tuple[tuple[Section, tuple[Result, ...]], ...]

    @property
    def results(self) -> tuple[Result, ...]:
        """The rows of all sections."""
        return tuple(result for _, results in self.sections for result in results)

    @property
    def exact_misses(self) -> tuple[Result, ...]:
        """Exact rows that differ: a defect, never an inaccuracy."""
        return tuple(
            result
            for result in self.results
            if result.check.status is Status.EXACT and result.verdict is not Verdict.EQUAL
        )


def validate(bench: Workbench, progress: Progress | None = None) -> Validation:
    """Run every row on `bench`; `progress(done, total, title)` is called before each section.

    Raises
    ------
    InputError
        a workload does not fit the machine.
    """
    sections = []
    for done, section in enumerate(SECTIONS):
        if progress is not None:
            progress(done, len(SECTIONS), section.title)
        sections.append((section, run_section(section, bench)))
    config = bench.config
    return Validation(config.name, config.digest, config == load_config(PUBLISHED_MACHINE), tuple(sections))


def verdict_counts(validation: Validation) -> dict[Verdict, int]:
    """How many rows have each verdict."""
    counts = Counter(result.verdict for result in validation.results)
    return {verdict: counts[verdict] for verdict in Verdict}


def shown(value: float | None, decimals: int) -> str:
    """A number of a row; a dash where there is none."""
    return "–" if value is None else f"{value:.{decimals}f}"


def reason(validation: Validation, result: Result) -> str:
    """Why the row misses; empty where it does not, and on a machine that the reasons were not written for."""
    return result.check.reason if validation.explained and result.verdict is Verdict.MISS else ""


def cells(validation: Validation, result: Result) -> tuple[str, ...]:
    """The row under `COLUMNS`."""
    check = result.check
    return (
        check.name,
        check.unit,
        shown(check.published, check.decimals),
        shown(result.ours, check.decimals),
        shown(result.ratio, 2),
        result.verdict.value,
        check.status.value,
        check.source,
        reason(validation, result),
    )


def markdown(validation: Validation) -> str:
    """The page docs/validation.md; the same text for the same machine and code."""
    counts = verdict_counts(validation)
    calibrated = [result.check.name for result in validation.results if result.check.status is Status.CALIBRATED]
    lines = [
        "# Validation against published numbers",
        "",
        "Written by `topsieve validate --out docs/validation.md`; do not edit.",
        "",
        f"Every published number of SpAtten (HPCA 2021) that can be checked today, on the machine `{validation.accelerator}`. "
        "A miss is reported as a miss.",
        "",
        f"* {counts[Verdict.EQUAL]} rows equal, {counts[Verdict.AGREES]} agree, {counts[Verdict.MISS]} miss, "
        f"{counts[Verdict.UNPUBLISHED]} have no published number beside them.",
        f"* {len(calibrated)} rows are calibrated: {'; '.join(calibrated)}. Energies per action and areas per unit are fitted to them "
        "(docs/energy.md); no other constant of any model was fitted to any number here.",
        "* *exact*: arithmetic on the same input, every printed digit must be equal. *recomputed*: the authors' formula again, "
        "within its sampling error. *predicted*: a result of the model; it agrees within "
        f"{AGREEMENT:.0%} of the published number, or within that number's own stated uncertainty where that is larger. *calibrated*: a constant was fitted to it, under the same "
        "bound.",
        "* Where the paper states nothing (lengths, keep ratios and widths of BERT, schedules of three GPT-2 data sets), the "
        "section says what is assumed. An assumption is set from other published numbers than those it then predicts.",
        "* Sections, tables and figures are those of the paper. *Specification* marks a number that was derived from published "
        "ones, or taken by running what the authors released.",
        *([] if validation.explained else [f"* Reasons are left out: they were found on `{PUBLISHED_MACHINE}`."]),
        "",
    ]
    for section, results in validation.sections:
        lines += [
            f"## {section.title}",
            "",
            section.text,
            "",
            *_table(COLUMNS, [cells(validation, row) for row in results]),
            "",
        ]
    lines += [
        "## Not yet modelled",
        "",
        *_table(
            ("published", "numbers", "source", "what it needs"),
            [(row.name, row.published, row.source, row.needs) for row in UNMODELLED],
        ),
    ]
    return "\n".join(lines) + "\n"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def as_json(validation: Validation) -> str:
    """JSON text of every row, with full digits."""
    data: dict[str, Any] = {
        "accelerator": validation.accelerator,
        "accelerator_digest": validation.accelerator_digest,
        "sections": [
            {
                "title": section.title,
                "text": section.text,
                "rows": [
                    {
                        "quantity": result.check.name,
                        "unit": result.check.unit,
                        "published": result.check.published,
                        "ours": result.ours,
                        "ratio": result.ratio,
                        "verdict": result.verdict.value,
                        "status": result.check.status.value,
                        "bound": result.check.bound,
                        "source": result.check.source,
                        "reason": reason(validation, result),
                    }
                    for result in results
                ],
            }
            for section, results in validation.sections
        ],
        "not_modelled": [
            {"name": row.name, "published": row.published, "source": row.source, "needs": row.needs}
            for row in UNMODELLED
        ],
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
