"""`run_sweep`: all points of a space, what is stored already taken from the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topsieve.exploration.executors import Executor, ExecutorKind, Work, open_executor, prepare
from topsieve.exploration.points import Point, Refused, Resolver
from topsieve.exploration.sampling import places
from topsieve.exploration.scheduling import Computed, compute
from topsieve.exploration.spec import SearchSpec, SweepSpec
from topsieve.exploration.store import Row, Store
from topsieve.exploration.work import run_chunk
from topsieve.exploration.workloads import QualityMeasure, Workloads
from topsieve_sim.errors import InputError


class Watcher:
    """Hears how a sweep goes on; this one says nothing."""

    def say(self, line: str) -> None:
        """Something begins."""

    def begin(self, total: int, stored: int) -> None:
        """`total` points are wanted, `stored` of them were in the store."""

    def advance(self, count: int) -> None:
        """`count` points more are finished."""


@dataclass(frozen=True)
class Measured:
    """A point with its row of results."""

    point: Point
    row: Row


@dataclass(frozen=True)
class Sweep:
    """The results of a sweep or a search, each list in the order of its points.

    Parameters
    ----------
    measured : points with results.
    refused : places that are no machine, and points that their machine cannot run.
    quarantined : points that killed their worker twice, in this run or an earlier one.
    failed : points that met a defect of Topsieve, with its text.
    facts : what ran, with digests.
    metrics : the measures of quality, the first is the main one.
    computed, stored : points computed by this run, and taken from the store.
    """

    spec: SweepSpec | SearchSpec
    measured: tuple[Measured, ...]
    refused: tuple[Refused, ...]
    quarantined: tuple[Refused, ...]
    failed: tuple[Refused, ...]
    facts: Mapping[str, Any]
    metrics: tuple[QualityMeasure, ...]
    computed: int
    stored: int
    deaths: int = 0
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Workers:
    """Where the points are computed; see `open_executor`."""

    kind: ExecutorKind = ExecutorKind.SERIAL
    count: int = 1
    address: str | None = None
    work: Work = field(default=run_chunk)

    def prepare(self) -> None:
        """Let them be loaded while this process does something else."""
        prepare(self.kind)

    def open(self) -> Executor:
        """The executor, its workers started."""
        return open_executor(self.kind, self.count, self.work, self.address)


def run_sweep(
    spec: SweepSpec,
    store: Store,
    workers: Workers | None = None,
    *,
    retry: bool = False,
    watcher: Watcher | None = None,
) -> Sweep:
    """Every point of `spec`; computes those that `store` lacks.

    Parameters
    ----------
    workers : default: this process.
    retry : try quarantined points again.

    Raises
    ------
    InputError
        bad input, or no point of the space is a machine that can run the workload.
    KeyboardInterrupt
        Ctrl-C; its text says what is kept.
    """
    workers, watcher = workers or Workers(), watcher or Watcher()
    workers.prepare()
    workloads = Workloads(spec.workload, spec.seed, store, watcher.say)
    resolved = Resolver(spec.base(), spec.mode, spec.seed, workloads).resolve_all(places(spec))
    points = {item.key: item for item in resolved if isinstance(item, Point)}
    if not points and resolved:
        first = resolved[0]
        assert isinstance(first, Refused)
        raise InputError(f"no point of the sweep is a machine; the first: {first.reason}")
    rows = store.rows(points)
    stored = len(rows)
    buried = set() if retry else {key for key in points if key not in rows and store.quarantined(key)}
    missing = [point for key, point in points.items() if key not in rows and key not in buried]
    watcher.begin(len(points), stored)
    computed = Computed()
    if missing:
        computed = _computed(spec, missing, store, workers, watcher, len(points), stored)
        rows |= computed.rows
        if retry:
            for key in computed.rows:
                store.release(key)
    buried |= set(computed.quarantined)
    return gathered(spec, resolved, rows, buried, store, workloads, computed, stored)


def gathered(
    spec: SweepSpec | SearchSpec,
    resolved: Sequence[Point | Refused],
    rows: Mapping[str, Row],
    buried: AbstractSet[str],
    store: Store,
    workloads: Workloads,
    computed: Computed,
    stored: int,
) -> Sweep:
    """What is known of `resolved` places, in order: `rows` by key, and keys of points that are quarantined."""
    measured: list[Measured] = []
    refused: list[Refused] = []
    quarantined: list[Refused] = []
    failed: list[Refused] = []
    for item in resolved:
        if isinstance(item, Refused):
            refused.append(item)
            continue
        row = rows.get(item.key, {})
        if "refused" in row:
            refused.append(Refused(item.number, item.place, row["refused"]))
        elif "failed" in row:
            failed.append(Refused(item.number, item.place, row["failed"]))
        elif row:
            measured.append(Measured(item, row))
        elif item.key in buried:
            facts = store.quarantined(item.key) or {}
            quarantined.append(Refused(item.number, item.place, str(facts.get("reason"))))
    return Sweep(
        spec=spec,
        measured=tuple(measured),
        refused=tuple(refused),
        quarantined=tuple(quarantined),
        failed=tuple(failed),
        facts=workloads.facts(),
        metrics=workloads.metrics,
        computed=len(computed.rows),
        stored=stored,
        deaths=computed.deaths,
        cpu_seconds=computed.cpu_seconds,
    )


def _computed(
    spec: SweepSpec,
    missing: list[Point],
    store: Store,
    workers: Workers,
    watcher: Watcher,
    total: int,
    stored: int,
) -> Computed:
    finished = stored

    def done(count: int) -> None:
        nonlocal finished
        finished += count
        watcher.advance(count)

    try:
        with closing(workers.open()) as executor:
            return compute(missing, executor, store, spec.mode, spec.seed, done)
    except KeyboardInterrupt:
        kept = f"{finished} of {total} points are done and kept"
        raise KeyboardInterrupt(f"{kept}; the same command goes on from there") from None


def store_folder(out: Path, given: Path | None) -> Path:
    """Where a run's store is: the given one, which runs may share, or one of its own."""
    return given or out / "store"
