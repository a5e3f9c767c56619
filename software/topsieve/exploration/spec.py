"""What a sweep or a search is asked: the YAML file as validated objects."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from topsieve.methods import describe
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.arch.load import load_config
from topsieve_sim.errors import InputError
from topsieve_sim.fields import PresetFolder

SWEEPS = PresetFolder("topsieve.exploration", "examples/sweeps", "sweep")
SEARCHES = PresetFolder("topsieve.exploration", "examples/searches", "search")

Scalar = bool | int | float | str


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Mode(StrEnum):
    """What answers for a design."""

    CYCLE = "cycle"  # the simulator, to the cycle
    CLOSED_FORM = "closed-form"  # `topsieve_sim.closed_form`, with its stated error


class Sampling(StrEnum):
    """Which points of the space are taken."""

    GRID = "grid"  # every combination
    LATIN_HYPERCUBE = "latin-hypercube"  # `points` points; each axis is cut into as many equal strata, each met once


class Axis(_Part):
    """What one field may be: a list of values, or a range from `low` to `high`.

    A range of whole numbers yields whole numbers. `scale: log` spreads a range evenly in its logarithm. `count` is how many
    values of a range a grid takes.
    """

    values: tuple[Scalar, ...] = ()
    low: int | float | None = None
    high: int | float | None = None
    scale: str = Field("linear", pattern="^(linear|log)$")
    count: int | None = Field(None, ge=2, le=100_000)

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, data: Any) -> Any:
        if isinstance(data, list | tuple):
            return {"values": data}
        if isinstance(data, Scalar):
            return {"values": (data,)}
        return data

    @model_validator(mode="after")
    def _one_of_both(self) -> Axis:
        ranged = self.low is not None or self.high is not None
        if bool(self.values) == ranged:
            raise ValueError("give a list of values, or low and high")
        if ranged:
            if self.low is None or self.high is None or not self.low < self.high:
                raise ValueError(f"low must be below high, got {self.low} and {self.high}")
            if self.scale == "log" and self.low <= 0:
                raise ValueError(f"a logarithmic range begins above 0, got {self.low}")
        if len(set(map(repr, self.values))) < len(self.values):
            raise ValueError("a value is given twice")
        return self

    @property
    def whole(self) -> bool:
        """Whether a range has whole numbers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def at(self, share: float) -> Scalar:
        """The value at `share` in [0, 1) of the axis: of the list, or of the range."""
        if self.values:
            return self.values[int(share * len(self.values))]
        assert self.low is not None
        assert self.high is not None
        low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
        value = low * (high / low) ** share if self.scale == "log" else low + (high - low) * share
        return min(int(value), int(self.high)) if self.whole else float(value)

    def grid(self) -> tuple[Scalar, ...]:
        """The values that a grid takes, in order, none twice."""
        if self.values:
            return self.values
        assert self.low is not None
        assert self.high is not None
        assert self.count is not None
        last = self.count - 1
        found: dict[Scalar, None] = {}
        for step in range(self.count):
            share = step / last
            if self.scale == "log":
                value = self.low * (self.high / self.low) ** share
            else:
                value = self.low + (self.high - self.low) * share
            found[round(value) if self.whole else float(value)] = None
        return tuple(found)


class Workload(_Part):
    """What runs on every design: trace files and published workloads, or a model under methods."""

    traces: tuple[str, ...] = ()
    model: str | None = None
    methods: tuple[str, ...] = ()
    keep: Axis | None = Field(None, description="shares of tokens to keep, for the methods that take one")
    paragraphs: int = Field(48, ge=1)
    sequences: int = Field(8, ge=1)
    text: Path | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Workload:
        if bool(self.traces) == (self.model is not None):
            raise ValueError("give traces, or a model with methods")
        if self.traces and (self.methods or self.keep or self.text):
            raise ValueError("methods, keep and text belong to a model, not to traces")
        if self.model is not None and not self.methods:
            raise ValueError("a model needs methods")
        for name in ("traces", "methods"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise ValueError(f"{name}: one is given twice")
        if self.keep:
            bounds = self.keep.values or (self.keep.low, self.keep.high)
            if not all(isinstance(keep, int | float) and 0 < keep <= 1 for keep in bounds):
                raise ValueError("keep: shares of tokens are in (0, 1]")
            if self.keep.whole:
                raise ValueError("keep: a range needs a share below 1")
        for method in self.methods:
            try:
                info = describe(method.partition(":")[0].strip())
            except InputError as error:
                raise ValueError(str(error)) from error
            if info.takes_keep and self.keep is None and "keep=" not in method:
                raise ValueError(f"the method {method} needs keep")
        return self


class _Exploration(_Part):
    """What a sweep and a search share."""

    name: str = Field("exploration", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    mode: Mode = Mode.CYCLE
    accelerator: str = Field("spatten", description="preset or YAML file that the fields are varied around")
    seed: int = Field(0, ge=0, le=2**32 - 1)
    workload: Workload
    fields: Mapping[str, Axis] = Field(default_factory=dict, description="by dotted name of the configuration's fields")

    @field_validator("accelerator")
    @classmethod
    def _exists(cls, accelerator: str) -> str:
        try:
            load_config(accelerator)
        except InputError as error:
            raise ValueError(str(error)) from error
        return accelerator

    @model_validator(mode="after")
    def _fields_exist(self) -> _Exploration:
        data = self.base().model_dump(mode="json")
        for path in self.fields:
            node: Any = data
            for key in path.split("."):
                if not isinstance(node, dict) or key not in node:
                    known = ", ".join(node) if isinstance(node, dict) else "none"
                    raise ValueError(f"fields: {path} is no field of an accelerator; known there: {known}")
                node = node[key]
            if isinstance(node, dict):
                raise ValueError(f"fields: {path} is a group of fields: {', '.join(node)}")
        return self

    def base(self) -> AcceleratorConfig:
        """The accelerator that the fields are varied around."""
        return load_config(self.accelerator)


class Objective(StrEnum):
    """What a search makes small, or large where it is quality."""

    LATENCY_CYCLES = "latency_cycles"
    ENERGY_PJ = "energy_pj"
    AREA_MM2 = "area_mm2"
    QUALITY = "quality"


class SweepSpec(_Exploration):
    """A sweep: the points of a grid or of a Latin hypercube over fields, and methods and keep ratios or traces."""

    sampling: Sampling = Sampling.GRID
    points: int | None = Field(None, ge=1, le=10_000_000, description="of a Latin hypercube")

    @model_validator(mode="after")
    def _sampled(self) -> SweepSpec:
        if (self.sampling is Sampling.LATIN_HYPERCUBE) != (self.points is not None):
            raise ValueError("points: a Latin hypercube needs it, a grid has none")
        axes = dict(self.fields) | ({"workload.keep": self.workload.keep} if self.workload.keep else {})
        for path, axis in axes.items():
            if self.sampling is Sampling.GRID and not axis.values and axis.count is None:
                raise ValueError(f"{path}: a grid needs count values of a range")
        return self

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What the best points are the best in."""
        quality = (Objective.QUALITY,) if self.workload.model else ()
        return (Objective.LATENCY_CYCLES, Objective.ENERGY_PJ, Objective.AREA_MM2, *quality)


class Sampler(StrEnum):
    """Which optimiser proposes designs."""

    NSGA2 = "nsga2"
    TPE = "tpe"
    RANDOM = "random"


class SearchSpec(_Exploration):
    """A search: how many designs an optimiser may try, what it is after, and which known designs it begins with."""

    objectives: tuple[Objective, ...] = Field(
        (Objective.LATENCY_CYCLES, Objective.ENERGY_PJ, Objective.AREA_MM2), min_length=1
    )
    trials: int = Field(ge=1, le=1_000_000)
    batch: int = Field(16, ge=1, le=10_000, description="designs proposed at once, whatever the number of workers")
    sampler: Sampler = Sampler.NSGA2
    enqueue: tuple[str, ...] = Field(("spatten", "topsieve"), description="presets or YAML files that are tried first")

    @model_validator(mode="after")
    def _sensible(self) -> SearchSpec:
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives: one is given twice")
        if Objective.QUALITY in self.objectives and self.workload.model is None:
            raise ValueError("objectives: quality needs a model, traces have none")
        if not self.fields and len(self.workload.methods) < 2 and self.workload.keep is None:
            raise ValueError("nothing to search: give fields, methods or a range of keep")
        if len(self.workload.traces) > 1:
            raise ValueError("workload.traces: a search optimises for one trace")
        for name in self.enqueue:
            try:
                load_config(name)
            except InputError as error:
                raise ValueError(f"enqueue: {error}") from error
        return self


_Spec = TypeVar("_Spec", SweepSpec, SearchSpec)


def load_sweep(source: str | Path, overrides: tuple[str, ...] = ()) -> SweepSpec:
    """Read a shipped example by name or a YAML file by path.

    Raises
    ------
    InputError
        no such file, not YAML, or a field that is unknown, missing or wrong; one line.
    """
    return SWEEPS.load(SweepSpec, source, overrides)


def load_search(source: str | Path, overrides: tuple[str, ...] = ()) -> SearchSpec:
    """As `load_sweep`, for a search."""
    return SEARCHES.load(SearchSpec, source, overrides)
