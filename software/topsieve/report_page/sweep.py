"""What the page of a sweep or a search shows, read from the files in its folder."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topsieve.exploration.spec import Objective
from topsieve.exploration.sweep_files import REFUSED_TABLE, RESULTS_TABLE, SUMMARY
from topsieve.exploration.work import MEASURES
from topsieve.report_page.columns import HIGHER, LOWER, Column, column
from topsieve.report_page.content import style
from topsieve_sim.errors import InputError

POINT = "point"


@dataclass(frozen=True)
class SweepResults:
    """A sweep as its folder holds it.

    Parameters
    ----------
    header, rows : of `results.csv`; numbers are numbers, an empty cell is None.
    summary : of `summary.json`.
    refused : points that are no machine or could not run.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    summary: dict[str, Any]
    refused: int

    @property
    def quality(self) -> tuple[str, ...]:
        """Columns of the measures of quality, the main one first."""
        return self.header[self.header.index(MEASURES[-1]) + 1 :]

    @property
    def objectives(self) -> tuple[str, ...]:
        """Columns of the sweep's objectives."""
        return tuple(self.quality[0] if name == Objective.QUALITY else str(name) for name in self.summary["objectives"])

    @property
    def front(self) -> tuple[int, ...]:
        """Places of the rows that the summary counts to the front."""
        numbers = {point[POINT] for point in self.summary["front"]}
        place = self.header.index(POINT)
        return tuple(index for index, row in enumerate(self.rows) if row[place] in numbers)

    def columns(self) -> list[Column]:
        """The columns of the points; which side of a measure of quality is better, the summary says."""
        better = {measure["name"]: LOWER if measure["lower"] else HIGHER for measure in self.summary["quality"]}
        return [
            column(name, [row[place] for row in self.rows], better.get(name)) for place, name in enumerate(self.header)
        ]

    def values(self, name: str) -> list[Any]:
        """The column `name`."""
        place = self.header.index(name)
        return [row[place] for row in self.rows]


def is_sweep(folder: Path) -> bool:
    """Whether `folder` holds the files of a sweep."""
    return (folder / RESULTS_TABLE).is_file() and (folder / SUMMARY).is_file()


def read_sweep(folder: Path) -> SweepResults:
    """The sweep or search whose files are in `folder`.

    Raises
    ------
    InputError
        a file cannot be read or is not what a sweep writes; no point was measured.
    """
    header, rows = _table(folder / RESULTS_TABLE)
    wrong = InputError("not the results of a sweep", source=str(folder / RESULTS_TABLE))
    if header[:1] != (POINT,) or not set(MEASURES) <= set(header):
        raise wrong
    if not rows:
        raise InputError("no point of the sweep was measured", source=str(folder / RESULTS_TABLE))
    if any(len(row) != len(header) for row in rows):
        raise wrong
    refused = len(_table(folder / REFUSED_TABLE)[1]) if (folder / REFUSED_TABLE).is_file() else 0
    found = SweepResults(header, rows, _summary(folder / SUMMARY), refused)
    missing = [name for name in found.summary["objectives"] if name != Objective.QUALITY and name not in header]
    if missing or (Objective.QUALITY in found.summary["objectives"] and not found.quality):
        raise InputError("not the summary of this sweep", source=str(folder / SUMMARY), field="objectives")
    return found


def sweep_page(sweep: SweepResults) -> dict[str, Any]:
    """The page of a sweep."""
    summary = sweep.summary
    columns = sweep.columns()
    axes = [name for name in sweep.objectives if name != Objective.LATENCY_CYCLES]
    return {
        "title": f"{summary['name']}: {len(sweep.rows)} designs",
        "kind": "sweep",
        "summary": [
            ["name", summary["name"], ""],
            ["mode", summary["mode"], ""],
            ["seed", summary["seed"], ""],
            ["points measured", len(sweep.rows), ""],
            ["points refused", sweep.refused, ""],
            ["objectives", ", ".join(summary["objectives"]), ""],
            ["points on the front", len(sweep.front), ""],
        ],
        "points": {
            "table": {
                "id": "points",
                "caption": "Each design that was measured",
                "columns": columns,
                "rows": [list(row) for row in sweep.rows],
                "foot": [],
            },
            "noun": "Designs",
            "objectives": list(sweep.objectives),
            "front": list(sweep.front),
            "axes": [Objective.LATENCY_CYCLES.value, axes[-1] if axes else Objective.ENERGY_PJ.value],
        },
        "runs": [],
        "style": style(),
    }


def _table(path: Path) -> tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            header, *rows = csv.reader(stream)
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", source=str(path)) from error
    except (ValueError, csv.Error) as error:
        raise InputError("not a table of a sweep", source=str(path)) from error
    return tuple(header), tuple(tuple(_value(cell) for cell in row) for row in rows)


def _value(cell: str) -> Any:
    """A cell as what it was before it was written."""
    if not cell:
        return None
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _summary(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        known = {name: summary[name] for name in ("name", "mode", "seed", "objectives", "quality", "front", "least")}
        [point[POINT] for point in known["front"]]
        [(measure["name"], measure["lower"]) for measure in known["quality"]]
        return {**known, "objectives": [Objective(name).value for name in known["objectives"]]}
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", source=str(path)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError("not the summary of a sweep", source=str(path)) from error
