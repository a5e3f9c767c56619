"""What the commands `sweep` and `search` share: workers, the progress bar, how results look."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from topsieve.exploration.sweep import Watcher

if TYPE_CHECKING:
    from topsieve.exploration.sweep import Sweep, Workers


def workers_of(arguments: argparse.Namespace) -> Workers:
    """The workers that the command line asks for.

    Raises
    ------
    InputError
        a number of workers below 1, or an address without dask.
    """
    from topsieve.exploration.executors import ExecutorKind
    from topsieve.exploration.sweep import Workers
    from topsieve_sim.errors import InputError

    kind = ExecutorKind(arguments.executor)
    count = arguments.workers if arguments.workers is not None else len(os.sched_getaffinity(0))
    if count < 1:
        raise InputError("wrong value", source="--workers", value=count, allowed="at least 1")
    if arguments.address and kind is not ExecutorKind.DASK:
        raise InputError("an address is for a dask scheduler", source="--address", allowed="with --executor dask")
    return Workers(kind, count, arguments.address)


class RichWatcher(Watcher):
    """A progress bar on stderr, with points a second and the time that is left; lines where stderr is no terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("points"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: Any = None

    def __enter__(self) -> RichWatcher:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def begin(self, total: int, stored: int) -> None:
        self.say(f"{total} points, {stored} of them in the store")
        self._task = self._progress.add_task("points", total=total, completed=stored, rate="")

    def advance(self, count: int) -> None:
        self._progress.advance(self._task, count)
        speed = self._progress.tasks[0].speed
        self._progress.update(self._task, rate=f"{speed:.1f}/s" if speed else "")


def say_unmeasured(watcher: Watcher, sweep: Sweep) -> None:
    """Name the points that killed their worker or met a defect."""
    for item in (*sweep.quarantined, *sweep.failed):
        place = ", ".join(f"{column}={value}" for column, value in item.place.items())
        watcher.say(f"point {item.number} ({place}): {item.reason}")


def measure_headings() -> tuple[str, ...]:
    """Headings of `measures`."""
    return ("cycles", "latency us", "DRAM", "energy", "power W", "area mm2")


def measures(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The main measures of a point as texts."""
    from topsieve.cli.show import count, quantity

    return (
        count(row["latency_cycles"]),
        f"{row['latency_us']:,.1f}",
        quantity(row["dram_bytes"], "B"),
        quantity(row["energy_pj"] * 1e-12, "J"),
        f"{row['power_w']:.3g}",
        f"{row['area_mm2']:.4g}",
    )


def print_front(sweep: Sweep) -> None:
    """The points that no other beats, as a table: the fastest of them."""
    from topsieve.cli.show import print_table
    from topsieve.exploration.sweep_files import columns_of, front_of

    front = front_of(sweep)
    columns = [column for column in columns_of(sweep) if len({item.point.place.get(column) for item in front}) > 1]
    shown = sorted(front, key=lambda item: (item.row["latency_cycles"], item.point.number))[:20]
    objectives = ", ".join(objective.value for objective in sweep.spec.objectives)
    print_table(
        f"{sweep.spec.name}: {len(sweep.measured)} points ({sweep.spec.mode}); {len(front)} that no other beats in {objectives}"
        + (f", the {len(shown)} fastest" if len(shown) < len(front) else ""),
        [
            ("point", "right"),
            *((column, "left") for column in columns),
            *((name, "right") for name in (*measure_headings(), *sweep.metrics[:1])),
        ],
        [
            [
                str(item.point.number),
                *(_text(item.point.place.get(column)) for column in columns),
                *measures(item.row),
                *(f"{item.point.run.quality[name]:.3f}" for name in sweep.metrics[:1]),
            ]
            for item in shown
        ],
    )


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
