"""Runs points on an executor: chunks of the right size, results kept as they come, workers that die survived.

A worker's death is laid on the points that it had. They are run again one by one; a point that kills two workers while it
is alone is quarantined, and the others go on.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

from topsieve.exploration.executors import Executor
from topsieve.exploration.points import Chunk, Point
from topsieve.exploration.spec import Mode
from topsieve.exploration.store import Row, Store
from topsieve.exploration.work import ChunkResult

# Long against the cost of handing a chunk over (under a millisecond, a few on dask), short against a person's patience.
CHUNK_SECONDS = 0.25
LARGEST_CHUNK = 1024
# Before anything is known of a point's time. Closed forms share their preparation over a chunk.
FIRST_CHUNK = {Mode.CYCLE: 1, Mode.CLOSED_FORM: 64}
DEATHS = 2

Done = Callable[[int], None]


@dataclass
class Computed:
    """What a run of points gave.

    rows : by key. quarantined : keys of points that killed their workers. deaths : workers that died.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    quarantined: list[str] = field(default_factory=list)
    deaths: int = 0
    cpu_seconds: float = 0.0


def affinity(point: Point) -> Hashable:
    """Equal for points that share what a worker prepares: the trace, and what its data decides on the machine."""
    config = point.config
    return (point.run.key, config.capacity, config.formats, config.topk, config.progressive.enabled)


class _Pending:
    """Points that wait, by affinity; a slot stays with its own as long as there are any.

    Groups of one trace follow each other, those of equal formats next to each other: a worker keeps the last few that it
    prepared.
    """

    def __init__(self, points: Iterable[Point]) -> None:
        self._groups: dict[Hashable, deque[Point]] = {}
        traces: dict[str, int] = {}
        for point in points:
            traces.setdefault(point.run.key, len(traces))
            self._groups.setdefault(affinity(point), deque()).append(point)
        # A group's own name may not compare: formats and engines are models.
        order = {name: (traces[group[0].run.key], repr(name)) for name, group in self._groups.items()}
        self._untouched = sorted(self._groups, key=order.__getitem__, reverse=True)
        self._of_slot: dict[int, Hashable] = {}
        self.alone: deque[Point] = deque()
        self.left = sum(map(len, self._groups.values()))

    def take(self, slot: int, size: int) -> tuple[Point, ...]:
        """Up to `size` points of one trace for `slot`; one point where it is to run alone; empty at the end."""
        if self.alone:
            return (self.alone.popleft(),)
        taken: list[Point] = []
        while len(taken) < size:
            group = self._group(slot)
            if group is None or (taken and group[0].run.key != taken[0].run.key):
                break
            taken += [group.popleft() for _ in range(min(size - len(taken), len(group)))]
        self.left -= len(taken)
        return tuple(taken)

    def trace(self, slot: int) -> str | None:
        """Key of the trace of the points that `slot` would get next."""
        group = self._group(slot)
        return group[0].run.key if group else None

    def _group(self, slot: int) -> deque[Point] | None:
        own = self._groups.get(self._of_slot.get(slot))
        if own:
            return own
        while self._untouched and not self._groups[self._untouched[-1]]:
            self._untouched.pop()
        if self._untouched:
            name = self._untouched.pop()
        else:
            # Others work on what is left: help where there is most of it.
            name = max(self._groups, key=lambda name: len(self._groups[name]), default=None)
        self._of_slot[slot] = name
        return self._groups.get(name) or None


class _Pace:
    """Seconds a point, by trace; how many points a chunk gets."""

    def __init__(self, mode: Mode, slots: int) -> None:
        self._first = FIRST_CHUNK[mode]
        self._slots = slots
        self._seconds: dict[str, float] = {}

    def size(self, trace: str | None, left: int) -> int:
        seconds = self._seconds.get(trace) if trace else None
        wanted = self._first if seconds is None else int(CHUNK_SECONDS / max(seconds, 1e-9))
        # Towards the end chunks get smaller, so that no worker is left with the last one alone.
        return max(1, min(wanted, LARGEST_CHUNK, -(-left // (2 * self._slots))))

    def learn(self, trace: str, points: int, seconds: float) -> None:
        self._seconds[trace] = seconds / points


def compute(
    points: Iterable[Point], executor: Executor, store: Store, mode: Mode, seed: int, done: Done = lambda count: None
) -> Computed:
    """Run `points` (keys differ), keeping every result in `store` as soon as its chunk is back.

    `done` is called with the number of points that were finished. Nothing that was kept is lost when this is interrupted or
    killed.
    """
    pending = _Pending(points)
    pace = _Pace(mode, max(1, len(executor.idle)))
    running: dict[int, tuple[Point, ...]] = {}
    deaths: Counter[str] = Counter()
    computed = Computed()
    while True:
        for slot in executor.idle:
            taken = pending.take(slot, pace.size(pending.trace(slot), pending.left))
            if taken:
                running[slot] = taken
                executor.submit(slot, Chunk(mode, seed, tuple((p.key, p.run.path, p.config) for p in taken)))
        if not running:
            return computed
        for slot, result in executor.finished():
            taken = running.pop(slot)
            if result is None:
                computed.deaths += 1
                done(_bury(taken, deaths, pending, store, computed))
                continue
            pace.learn(taken[0].run.key, len(taken), result.wall_seconds)
            computed.cpu_seconds += result.cpu_seconds
            _keep(result, store, computed)
            done(len(taken))


def _keep(result: ChunkResult, store: Store, computed: Computed) -> None:
    # A defect may be mended without a change of the code that a key knows of, a package for example: it is tried again.
    store.add(row for row in result.rows if "failed" not in row)
    computed.rows |= {row["key"]: row for row in result.rows}


def _bury(taken: tuple[Point, ...], deaths: Counter[str], pending: _Pending, store: Store, computed: Computed) -> int:
    """After a death: how many points are finished by it (one that is quarantined, or none)."""
    if len(taken) > 1:
        pending.alone.extend(taken)
        return 0
    (point,) = taken
    deaths[point.key] += 1
    if deaths[point.key] < DEATHS:
        pending.alone.append(point)
        return 0
    facts: dict[str, Any] = {
        "place": dict(point.place),
        "accelerator": point.config.model_dump(mode="json"),
        "trace": point.run.key,
        "reason": f"killed its worker {DEATHS} times",
    }
    store.quarantine(point.key, facts)
    computed.quarantined.append(point.key)
    return 1
