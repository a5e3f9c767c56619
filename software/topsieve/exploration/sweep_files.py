"""The files of a sweep or a search: every point in a table, the front of the best in a summary; units in the headers.

The same bytes from one worker and from many, in one run or resumed: what depends on the run (times, what the store had) is
not in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from topsieve.exploration.pareto import pareto_front
from topsieve.exploration.points import Refused
from topsieve.exploration.sampling import KEEP, METHOD, axes_of
from topsieve.exploration.spec import Objective
from topsieve.exploration.sweep import Measured, Sweep
from topsieve.exploration.work import MEASURES
from topsieve.exploration.workloads import QualityMeasure
from topsieve.results import json_text, versions, write_rows, write_text
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.arch.load import dump_config

FORMAT_VERSION = 1
RESULTS_TABLE = "results.csv"
RESULTS = "results.json"
SUMMARY = "summary.json"
REFUSED_TABLE = "refused.csv"

# Measures whose least point stands in the summary.
LEAST = ("latency_cycles", "energy_pj", "area_mm2")


def write_inputs(folder: Path, config: AcceleratorConfig) -> None:
    """Write the fully resolved configuration that the fields are varied around, before the work begins."""
    dump_config(config, folder / "accelerator.yaml")


def columns_of(sweep: Sweep) -> tuple[str, ...]:
    """Columns of a point's place."""
    columns = list(axes_of(sweep.spec))
    if METHOD in columns and KEEP not in columns:
        columns.insert(1, KEEP)
    return tuple(columns)


def front_of(sweep: Sweep) -> tuple[Measured, ...]:
    """The points that no other beats in all objectives."""
    costs = [costs_of(item, sweep.spec.objectives, sweep.metrics) for item in sweep.measured]
    return tuple(sweep.measured[place] for place in pareto_front(costs))


def costs_of(item: Measured, objectives: Sequence[Objective], metrics: Sequence[QualityMeasure]) -> list[float]:
    """What a point costs in each objective; quality is the first of `metrics`, its negative where more is better."""

    def cost(objective: Objective) -> float:
        if objective is not Objective.QUALITY:
            return float(item.row[objective.value])
        quality = float(item.point.run.quality[metrics[0].name])
        return quality if metrics[0].lower else -quality

    return [cost(objective) for objective in objectives]


def write_results(sweep: Sweep, folder: Path) -> None:
    """Write `results.csv`, `results.json`, `summary.json` and `refused.csv`.

    Raises
    ------
    InputError
        a file cannot be written; those before it are whole.
    """
    columns = columns_of(sweep)
    quality = [measure.name for measure in sweep.metrics]
    write_rows(
        folder / RESULTS_TABLE,
        ("point", *columns, *MEASURES, *quality),
        ([item.point.number, *_values(item, columns, quality)] for item in sweep.measured),
    )
    write_rows(
        folder / REFUSED_TABLE,
        ("point", *columns, "kind", "reason"),
        (
            [item.number, *(item.place.get(column) for column in columns), kind, item.reason]
            for kind, item in _not_measured(sweep)
        ),
    )
    inputs = {
        "accelerator": sweep.spec.base().model_dump(mode="json"),
        "specification": sweep.spec.model_dump(mode="json", exclude_none=True),
        "workload": sweep.facts,
        "versions": versions(),
    }
    points = [_point(item) for item in sweep.measured]
    write_text(folder / RESULTS, json_text({"format": FORMAT_VERSION, "inputs": inputs, "points": points}))
    write_text(folder / SUMMARY, summary_text(sweep))


def summary_text(sweep: Sweep) -> str:
    """The summary as JSON, equal to the byte for equal sweeps."""
    measured = sweep.measured
    return json_text(
        {
            "format": FORMAT_VERSION,
            "name": sweep.spec.name,
            "mode": sweep.spec.mode.value,
            "seed": sweep.spec.seed,
            "points": len(measured) + sum(1 for _ in _not_measured(sweep)),
            "measured": len(measured),
            "refused": len(sweep.refused),
            "quarantined": [{"point": item.number, **item.place, "reason": item.reason} for item in sweep.quarantined],
            "failed": [{"point": item.number, **item.place, "reason": item.reason} for item in sweep.failed],
            "least": {
                name: _point(min(measured, key=lambda item: (item.row[name], item.point.number)))
                for name in LEAST
                if measured
            },
            "quality": [measure._asdict() for measure in sweep.metrics],
            "objectives": [objective.value for objective in sweep.spec.objectives],
            "front": [_point(item) for item in front_of(sweep)],
        }
    )


def _point(item: Measured) -> dict[str, Any]:
    place = {**item.point.place, "point": item.point.number, "accelerator_digest": item.point.config.digest}
    return {**place, **{name: item.row[name] for name in MEASURES}, **item.point.run.quality}


def _values(item: Measured, columns: Sequence[str], quality: Sequence[str]) -> Iterable[Any]:
    place: Mapping[str, Any] = item.point.place
    return (
        *(place.get(column) for column in columns),
        *(item.row[name] for name in MEASURES),
        *(item.point.run.quality[name] for name in quality),
    )


def _not_measured(sweep: Sweep) -> Iterable[tuple[str, Refused]]:
    for kind, items in (("refused", sweep.refused), ("quarantined", sweep.quarantined), ("failed", sweep.failed)):
        for item in items:
            yield kind, item
