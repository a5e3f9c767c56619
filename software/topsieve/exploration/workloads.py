"""The traces and the quality behind the points of a space: each is made once, then comes from the store."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from topsieve.cli.inputs import read_trace
from topsieve.corpus import read_corpus
from topsieve.exploration.sampling import KEEP, METHOD, TRACE, Place
from topsieve.exploration.spec import Workload
from topsieve.exploration.store import STORE_VERSION, Store, digest
from topsieve.results import code_digest, versions

if TYPE_CHECKING:
    from topsieve.reduction.roles import BitPlan, Method
    from topsieve.subjects.subject import Subject
    from topsieve_sim.arch import AcceleratorConfig

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """What one point runs.

    Parameters
    ----------
    key : of the trace, by content or by everything that decides it.
    path : of the trace in the store.
    quality : measures of quality by name, empty for traces.
    """

    key: str
    path: Path
    quality: Mapping[str, float | int]


class QualityMeasure(NamedTuple):
    """A measure of quality by name, and whether less of it is better."""

    name: str
    lower: bool


class Workloads:
    """Makes the runs of points.

    Parameters
    ----------
    workload, seed : of the specification.
    store : where traces and quality are kept.
    progress : called with a line when a model is loaded or runs.
    """

    def __init__(self, workload: Workload, seed: int, store: Store, progress: Progress) -> None:
        self._workload = workload
        self._seed = seed
        self._store = store
        self._progress = progress
        self._given: dict[str, str] = {}
        self._subject: Subject | None = None
        self._facts: dict[str, Any] = {}
        self._loaded = False
        self._code = ""
        self._qualities: dict[str, Mapping[str, float | int]] = {}
        self.metrics: tuple[QualityMeasure, ...] = ()

    def run(self, place: Place, config: AcceleratorConfig) -> Run:
        """The run of the point at `place` on the machine `config`; made where it is not in the store.

        Raises
        ------
        InputError
            a trace cannot be read; the model cannot be loaded; a method does not act on it.
        """
        if TRACE in place:
            return self._given_run(str(place[TRACE]))
        return self._model_run(str(place[METHOD]), place[KEEP], config)

    def facts(self) -> dict[str, Any]:
        """What ran, as plain data; digests of the contents in it."""
        if self._workload.traces:
            return {"traces": dict(self._given)}
        return self._facts

    def _given_run(self, source: str) -> Run:
        if source not in self._given:
            self._given[source] = self._store.add_given_trace(read_trace(source))
        key = self._given[source]
        return Run(key, self._store.trace_path(key), {})

    def _model_run(self, method: str, keep: Any, config: AcceleratorConfig) -> Run:
        from topsieve.measure import machine_bits

        subject = self._opened()
        bits = machine_bits(config)
        made_by = [STORE_VERSION, self._facts, method, keep, self._code, versions()]
        key, quality_key = digest([*made_by, dataclasses.asdict(bits)]), digest(made_by)
        if not self._store.has_trace(key):
            self._store.add_trace(self._observed(subject, method, keep, bits), key)
        if quality_key not in self._qualities:
            stored = self._store.quality(quality_key)
            if stored is None:
                self._progress(f"{_named(method, keep)}: quality on {self._facts['paragraphs']} inputs")
                self._ready(subject)
                values = subject.quality(_built(method, keep))
                # The first metric is the one that is plotted and searched for.
                measures = [[name, metric.lower] for name, metric in subject.metrics.items()]
                stored = {"metrics": measures, "values": values}
                self._store.add_quality(quality_key, stored)
            self._qualities[quality_key] = stored["values"]
            self.metrics = tuple(QualityMeasure(*measure) for measure in stored["metrics"])
        return Run(key, self._store.trace_path(key), self._qualities[quality_key])

    def _opened(self) -> Subject:
        if self._subject is None:
            from topsieve.subjects.registry import open_subject
            from topsieve.subjects.subject import Inputs

            workload = self._workload
            assert workload.model is not None
            inputs = Inputs(
                corpus=read_corpus(workload.text) if workload.text else None,
                paragraphs=workload.paragraphs,
                sequences=workload.sequences,
                seed=self._seed,
            )
            self._progress(f"opening {workload.model}")
            self._subject = open_subject(workload.model, inputs)
            self._facts = self._subject.facts()
            self._code = _code()
        return self._subject

    def _ready(self, subject: Subject) -> None:
        if not self._loaded:
            self._progress(f"loading {self._workload.model}, measuring it unreduced")
            subject.load()
            self._loaded = True

    def _observed(self, subject: Subject, method: str, keep: Any, bits: BitPlan) -> Any:
        self._ready(subject)
        self._progress(f"{_named(method, keep)}: running the model for its trace")
        return subject.observe(_built(method, keep), bits).trace


def _named(method: str, keep: Any) -> str:
    return method if keep is None else f"{method}, keep {keep:g}"


def _built(method: str, keep: Any) -> Method:
    from topsieve.methods import build

    return build(method, keep=keep)


def _code() -> str:
    """Of all code that a trace depends on."""
    import topsieve
    import topsieve_sim

    return code_digest(topsieve, topsieve_sim)
