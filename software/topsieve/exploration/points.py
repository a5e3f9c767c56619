"""Points: a place in the space with the machine and the run that it stands for, and the key of its result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topsieve.exploration.sampling import KEEP, METHOD, TRACE, Place
from topsieve.exploration.spec import Mode
from topsieve.exploration.store import STORE_VERSION, digest
from topsieve.exploration.workloads import Run, Workloads
from topsieve.results import code_digest, versions
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.errors import InputError
from topsieve_sim.fields import validated

# Columns of a place that name what runs; the others are fields of the machine.
WORKLOAD_COLUMNS = (TRACE, METHOD, KEEP)


@dataclass(frozen=True)
class Point:
    """One design on one run.

    Parameters
    ----------
    number : of its place in the sweep.
    place : column: value.
    config : the machine.
    run : what runs on it.
    key : hash of everything that its result depends on.
    """

    number: int
    place: Place
    config: AcceleratorConfig
    run: Run
    key: str

    @property
    def name(self) -> str:
        """The point in a line."""
        return ", ".join(f"{column}={value}" for column, value in self.place.items() if value is not None)


@dataclass(frozen=True)
class Refused:
    """A place that is no machine, or a point that its machine cannot run; `reason` in one line."""

    number: int
    place: Place
    reason: str


def machine_at(base: Mapping[str, Any], place: Place) -> AcceleratorConfig:
    """The configuration `base` (plain data) with the fields of `place`.

    Raises
    ------
    InputError
        it is no machine: a value out of range, or two that do not fit together.
    """
    data = _copied(base)
    for column, value in place.items():
        if column in WORKLOAD_COLUMNS:
            continue
        *groups, name = column.split(".")
        node = data
        for group in groups:
            node = node[group]
        node[name] = value
    return validated(AcceleratorConfig, data, "design")


def _copied(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copied(value) if isinstance(value, Mapping) else value for name, value in data.items()}


class Resolver:
    """From places to points.

    Parameters
    ----------
    base : the machine that fields are varied around. mode, seed : of the specification.
    """

    def __init__(self, base: AcceleratorConfig, mode: Mode, seed: int, workloads: Workloads) -> None:
        import topsieve_sim
        from topsieve_sim.energy import technology_digest

        self._base = base.model_dump(mode="json")
        self._workloads = workloads
        self._technology_digest = technology_digest
        self._technologies: dict[str, str] = {}
        self._common = [STORE_VERSION, mode.value, seed, code_digest(topsieve_sim), versions()]

    def resolve(self, number: int, place: Place) -> Point | Refused:
        """The point at `place`, its trace made where it is missing; or why there is none."""
        try:
            config = machine_at(self._base, place)
        except InputError as error:
            return Refused(number, place, str(error))
        run = self._workloads.run(place, config)
        if config.technology not in self._technologies:
            self._technologies[config.technology] = self._technology_digest(config.technology)
        key = digest([*self._common, config.digest, self._technologies[config.technology], run.key])
        return Point(number, place, config, run, key)

    def resolve_all(self, places: Iterable[Place]) -> list[Point | Refused]:
        """`resolve` for each place, numbered from 1."""
        return [self.resolve(number, place) for number, place in enumerate(places, start=1)]


@dataclass(frozen=True)
class Chunk:
    """What a worker gets at once.

    Parameters
    ----------
    items : (key, file of the trace, machine) of each point.
    """

    mode: Mode
    seed: int
    items: tuple[tuple[str, Path, AcceleratorConfig], ...]
