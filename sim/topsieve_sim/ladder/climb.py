"""Run the ladder: the published machine, each feature on it alone, and all of them one on top of the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.energy import area_um2
from topsieve_sim.engine import prepare, simulate
from topsieve_sim.engine.program import Program
from topsieve_sim.ladder.features import FEATURES, IN_LOOP, PUBLISHED, Feature
from topsieve_sim.ladder.workloads import LOOP_WORKLOADS, WORKLOADS, Workload
from topsieve_sim.report import Report

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Step:
    """One machine on one workload."""

    cycles: int
    latency_us: float
    energy_pj: float
    dram_bytes: int


@dataclass(frozen=True)
class Rung:
    """One feature on one workload. alone : it alone on the published machine, with what it needs; area_mm2 is of `together`.

    together : it on top of all features before it. alone_base : what `alone` is compared with: the published machine with what
    the feature needs. area_alone_mm2 : what the feature adds to that machine; negative where it takes something away.
    """

    feature: str
    alone_base: Step
    alone: Step
    together: Step
    area_mm2: float
    area_alone_mm2: float

    @property
    def speedup_alone(self) -> float:
        """Cycles of its base over its own."""
        return self.alone_base.cycles / self.alone.cycles


@dataclass(frozen=True)
class Ladder:
    """The features on one workload, from the published machine up."""

    workload: str
    title: str
    in_loop: bool
    published: Step
    area_mm2: float
    rungs: tuple[Rung, ...]


class _Bench:
    """Each machine on each form of one workload, once."""

    def __init__(self, workload: Workload, overrides: tuple[str, ...]) -> None:
        self.workload = workload
        self.overrides = overrides
        self.programs: dict[bool, Program] = {}
        self.steps: dict[tuple[str, bool], Step] = {}

    def machine(self, fields: Sequence[str]) -> AcceleratorConfig:
        return load_config(PUBLISHED, [*self.overrides, *fields])

    def step(self, fields: Sequence[str], shares_keys: bool) -> Step:
        config = self.machine(fields)
        key = config.digest, shares_keys
        if key not in self.steps:
            if shares_keys not in self.programs:
                self.programs[shares_keys] = prepare(self.workload.build(shares_keys))
            self.steps[key] = _step(simulate(self.programs[shares_keys], config))
        return self.steps[key]

    def area_mm2(self, fields: Sequence[str]) -> float:
        return math.fsum(area_um2(self.machine(fields)).values()) * 1e-6


def _step(report: Report) -> Step:
    return Step(report.cycles, report.latency_us, report.energy_total_pj, report.dram_bytes_total)


def climb(
    workloads: Sequence[str] | None = None, *, in_loop: bool = True, progress: Progress | None = None
) -> tuple[Ladder, ...]:
    """The named workloads (default: all) on the ideal memory, then those of them in closed loop with the DRAM; seed 0."""
    plan: list[tuple[Workload, tuple[Feature, ...], tuple[str, ...]]] = [
        *((workload, FEATURES, ()) for workload in WORKLOADS),
        *((workload, IN_LOOP, ("memory.model=dram",)) for workload in LOOP_WORKLOADS if in_loop),
    ]
    plan = [part for part in plan if workloads is None or part[0].name in workloads]
    found = []
    for number, (workload, features, overrides) in enumerate(plan, 1):
        found.append(_ladder(_Bench(workload, overrides), features))
        if progress is not None:
            progress(number, len(plan), workload.title)
    return tuple(found)


def _ladder(bench: _Bench, features: Sequence[Feature]) -> Ladder:
    rungs = []
    below: tuple[str, ...] = ()
    shared = False
    for feature in features:
        below, shared = (*below, *feature.fields), shared or feature.shares_keys
        alone = (*feature.needs, *feature.fields)
        rungs.append(
            Rung(
                feature.name,
                bench.step(feature.needs, False),
                bench.step(alone, feature.shares_keys),
                bench.step(below, shared),
                bench.area_mm2(below),
                bench.area_mm2(alone) - bench.area_mm2(feature.needs),
            )
        )
    title = bench.workload.title
    return Ladder(
        bench.workload.name, title, bool(bench.overrides), bench.step((), False), bench.area_mm2(()), tuple(rungs)
    )
