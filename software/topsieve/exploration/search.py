"""`run_search`: an optimiser proposes designs, the sweep's machinery measures them, a journal file remembers.

The optimiser is Optuna (Akiba et al., KDD 2019). Designs are proposed in batches of a fixed size and told in their order,
and the sampler of each batch is seeded by the specification and by how many designs there are, so that any number of
workers finds the same designs.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from topsieve.exploration.points import Point, Refused, Resolver
from topsieve.exploration.sampling import KEEP, METHOD, TRACE, Place, axes_of, kept
from topsieve.exploration.scheduling import Computed, compute
from topsieve.exploration.spec import Axis, Sampler, Scalar, SearchSpec
from topsieve.exploration.store import Row, Store, digest
from topsieve.exploration.sweep import Measured, Sweep, Watcher, Workers, gathered
from topsieve.exploration.sweep_files import costs_of
from topsieve.exploration.workloads import Workloads
from topsieve_sim.arch.load import load_config
from topsieve_sim.errors import InputError

JOURNAL = "study.journal"
# Of a trial that met a defect of Topsieve: its text.
_DEFECT = "defect"


def run_search(
    spec: SearchSpec,
    out: Path,
    store: Store,
    workers: Workers | None = None,
    *,
    retry: bool = False,
    watcher: Watcher | None = None,
) -> Sweep:
    """`spec.trials` designs, those of an earlier run with the same question counted; goes on where it was stopped.

    Trials that an earlier run left unfinished are marked as failed. A design that is no machine is a failed trial too, and
    one that met a defect or, with `retry`, is quarantined is measured again; to the optimiser it stays a failed trial.

    Raises
    ------
    InputError
        bad input.
    KeyboardInterrupt
        Ctrl-C; its text says what is kept.
    """
    workers, watcher = workers or Workers(), watcher or Watcher()
    workers.prepare()
    search = _Search(spec, out, store, watcher)
    search.begin()
    try:
        with closing(workers.open()) as executor:
            search.again(executor, retry)
            while search.left > 0:
                search.step(executor)
    except KeyboardInterrupt:
        kept_text = f"{search.done} of {spec.trials} designs are done and kept"
        raise KeyboardInterrupt(f"{kept_text}; the same command goes on from there") from None
    return search.result()


class _Search:
    """A study and the points of its trials."""

    def __init__(self, spec: SearchSpec, out: Path, store: Store, watcher: Watcher) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._spec = spec
        self._store = store
        self._watcher = watcher
        self._workloads = Workloads(spec.workload, spec.seed, store, watcher.say)
        self._resolver = Resolver(spec.base(), spec.mode, spec.seed, self._workloads)
        self._axes = axes_of(spec)
        self._distributions = {name: distribution(axis) for name, axis in self._axes.items() if name != TRACE}
        self._computed = Computed()
        with warnings.catch_warnings():
            # The journal's interface is marked as one that may change; the version is pinned.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = JournalStorage(JournalFileBackend(str(out / JOURNAL)))
        # More trials of the same question go on with the same study; another question is another study.
        question = spec.model_dump(mode="json", exclude={"trials", "name"})
        self._study = optuna.create_study(
            storage=storage,
            study_name=digest(question),
            directions=["minimize" for _ in spec.objectives],
            load_if_exists=True,
        )

    @property
    def done(self) -> int:
        """Trials that are finished, failed ones included."""
        return len(self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL)))

    @property
    def left(self) -> int:
        """Trials still to make."""
        return self._spec.trials - self.done

    def begin(self) -> None:
        """Clear away what a killed run left, and put the known designs first in a new study."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)
        if not self._study.get_trials(deepcopy=False):
            for name in self._spec.enqueue:
                params, missing = known_design(self._axes, name)
                if missing:
                    self._watcher.say(f"{name} is not tried first: its {missing} is outside the space")
                else:
                    self._study.enqueue_trial(params)
        self._watcher.begin(self._spec.trials, self.done)

    def step(self, executor: Any) -> None:
        """Propose, measure and tell one batch."""
        spec, done = self._spec, self.done
        self._study.sampler = sampler(spec.sampler, spec.seed + done)
        trials = [self._study.ask(self._distributions) for _ in range(min(spec.batch, self.left))]
        resolved = [self._resolver.resolve(trial.number, self._place(trial.params)) for trial in trials]
        rows = self._rows(resolved, executor)
        for trial, item in zip(trials, resolved, strict=True):
            row = rows.get(item.key, {}) if isinstance(item, Point) else {}
            if "failed" in row:
                trial.set_user_attr(_DEFECT, row["failed"])
            if isinstance(item, Point) and "latency_cycles" in row:
                self._study.tell(item.number, costs_of(Measured(item, row), spec.objectives, self._workloads.metrics))
            else:
                self._study.tell(item.number, state=TrialState.FAIL)
        self._watcher.advance(len(trials))

    def again(self, executor: Any, retry: bool) -> None:
        """Measure designs of earlier runs that met a defect, and with `retry` those that are quarantined."""
        numbers = {trial.number for trial in self._finished() if _DEFECT in trial.user_attrs}
        resolved = [item for item in self._resolved() if isinstance(item, Point)]
        defects = {item.key for item in resolved if item.number in numbers}
        points = {item.key: item for item in resolved}
        rows = self._store.rows(points)
        missing = [
            point
            for key, point in points.items()
            if key not in rows and (retry if self._store.quarantined(key) else key in defects)
        ]
        for key in self._compute(missing, executor):
            self._store.release(key)

    def _finished(self) -> list[FrozenTrial]:
        """Trials with an end; one that was under way when its run was killed is no result."""
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
        return [trial for trial in trials if set(trial.params) == set(self._distributions)]

    def _resolved(self) -> list[Point | Refused]:
        return [self._resolver.resolve(trial.number, self._place(trial.params)) for trial in self._finished()]

    def result(self) -> Sweep:
        """All designs of the study."""
        resolved = self._resolved()
        keys = {item.key for item in resolved if isinstance(item, Point)}
        rows = {**self._store.rows(keys), **self._computed.rows}
        buried = {key for key in keys if key not in rows and self._store.quarantined(key)}
        return gathered(
            self._spec,
            resolved,
            rows,
            buried,
            self._store,
            self._workloads,
            self._computed,
            len(keys - set(self._computed.rows)),
        )

    def _place(self, params: Mapping[str, Any]) -> Place:
        place: dict[str, Scalar | None] = {}
        for name, axis in self._axes.items():
            place[name] = axis.values[0] if name == TRACE else params[name]
        if METHOD in place:
            place[KEEP] = kept(str(place[METHOD]), place.get(KEEP))
        return place

    def _rows(self, resolved: Sequence[Point | Refused], executor: Any) -> dict[str, Row]:
        points = {item.key: item for item in resolved if isinstance(item, Point)}
        rows = self._store.rows(points)
        missing = [p for key, p in points.items() if key not in rows and not self._store.quarantined(key)]
        return rows | self._compute(missing, executor)

    def _compute(self, points: Sequence[Point], executor: Any) -> dict[str, Row]:
        computed = compute(points, executor, self._store, self._spec.mode, self._spec.seed)
        self._computed.rows |= computed.rows
        self._computed.deaths += computed.deaths
        self._computed.cpu_seconds += computed.cpu_seconds
        return computed.rows


def distribution(axis: Axis) -> BaseDistribution:
    """The axis as the optimiser knows it."""
    if axis.values:
        return CategoricalDistribution(axis.values)
    assert axis.low is not None
    assert axis.high is not None
    log = axis.scale == "log"
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=log)
    return FloatDistribution(float(axis.low), float(axis.high), log=log)


def sampler(name: Sampler, seed: int) -> BaseSampler:
    """The optimiser `name`."""
    if name is Sampler.RANDOM:
        return RandomSampler(seed=seed)
    if name is Sampler.TPE:
        return TPESampler(seed=seed, multivariate=False)
    return NSGAIISampler(seed=seed)


def known_design(axes: Mapping[str, Axis], accelerator: str) -> tuple[dict[str, Scalar], str]:
    """The preset or file `accelerator` as a point of the space, and the first field of it that is outside, or nothing.

    It runs under the first method at the least keep ratio of the space.
    """
    data = load_config(accelerator).model_dump(mode="json")
    params: dict[str, Scalar] = {}
    for name, axis in axes.items():
        if name == TRACE:
            continue
        if name in (METHOD, KEEP):
            params[name] = axis.at(0.0)
            continue
        value: Any = data
        for key in name.split("."):
            value = value[key]
        inside = value in axis.values if axis.values else axis.low <= value <= axis.high
        if not inside:
            return {}, f"{name} = {value}"
        params[name] = value
    return params, ""


def require_results(sweep: Sweep) -> Sweep:
    """`sweep`, if any design of it is a machine that runs.

    Raises
    ------
    InputError
        none is.
    """
    if not sweep.measured and sweep.refused:
        raise InputError(f"no design of the search is a machine; the first: {sweep.refused[0].reason}")
    return sweep
