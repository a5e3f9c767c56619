"""`Measurement`: what `make gpu-bench` wrote on a machine with a GPU, read and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from topsieve.gpu.ops import Part
from topsieve_kernels.bench import SCHEMA_VERSION
from topsieve_sim.errors import InputError
from topsieve_sim.fields import validated

ELEMENT_BYTES = {"float16": 2, "bfloat16": 2}

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Timing(_Read):
    """Microseconds of a call on a GPU (never of a CPU's clock), and watts of the board meanwhile where they were measured."""

    median_us: Positive
    method: Literal["graph", "events"]
    board_power_w: Positive | None


class Baseline(_Read):
    """Another way to the same result, or why it does not run there."""

    timing: Timing | None = None
    unavailable: str | None = None


class Row(_Read):
    """One kernel at one shape."""

    kernel: str
    shape: str
    dimensions: dict[str, int | float | bool]
    passed: bool
    floor_us: Positive
    fraction_of_floor: Positive
    ours: Timing
    baselines: dict[str, Baseline]

    def timings(self) -> Iterator[tuple[str, Timing]]:
        """The calls that ran, ours first."""
        yield "ours", self.ours
        for name, baseline in self.baselines.items():
            if baseline.timing is not None:
                yield name, baseline.timing


class Machine(_Read):
    """Where it was measured."""

    device: str
    torch: str
    triton: str


class MeasuredCeilings(_Read):
    """What the machine reached in the same run."""

    copy_bytes_per_s: Positive
    matmul_flops_per_s: Positive


class Document(_Read):
    """A whole file, as `topsieve_kernels.bench.report` writes it; its `SCHEMA` says more than is read here."""

    schema_version: int
    date: date
    dtype: Literal["float16", "bfloat16"]
    machine: Machine
    ceilings: MeasuredCeilings
    clock_before: dict[str, str]
    clock_after: dict[str, str]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Measurement:
    """A file of the benchmark.

    Parameters
    ----------
    name : the file's name. digest : of its bytes.
    """

    name: str
    digest: str
    document: Document

    @property
    def device(self) -> str:
        """The GPU as its driver names it."""
        return self.document.machine.device

    @property
    def facts(self) -> dict[str, str]:
        """What a result that uses it says about it."""
        document = self.document
        facts = {"file": self.name, "digest": self.digest, "device": self.device, "date": document.date.isoformat()}
        return {**facts, "dtype": document.dtype, "torch": document.machine.torch, "triton": document.machine.triton}

    @cached_property
    def _by_kernel(self) -> Mapping[str, list[Row]]:
        """Rows whose result was right."""
        found: dict[str, list[Row]] = {}
        for row in self.document.rows:
            if row.passed:
                found.setdefault(row.kernel, []).append(row)
        return found

    def fastest(self, part: Part) -> Timing | None:
        """The shortest measured time of `part`, None where it was not measured."""
        found = [
            timing
            for row in self._by_kernel.get(part.kernel, ())
            if all(row.dimensions.get(name) == value for name, value in part.wanted.items())
            for name, timing in row.timings()
            if name in part.contenders
        ]
        return min(found, key=lambda timing: timing.median_us, default=None)


def load_measurement(path: str | Path) -> Measurement:
    """Read a file of `make gpu-bench`.

    Raises
    ------
    InputError
        it cannot be read, is of another version, or is not what the benchmark writes.
    """
    source = Path(path)
    try:
        content = source.read_bytes()
        data: Any = json.loads(content)
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", source=str(source)) from error
    except ValueError as error:
        raise InputError("not a JSON file of make gpu-bench", source=str(source)) from error
    if not isinstance(data, dict) or "schema_version" not in data:
        raise InputError("not a JSON file of make gpu-bench", source=str(source))
    if data["schema_version"] != SCHEMA_VERSION:
        raise InputError(
            "written by another version of the benchmark: measure again",
            source=str(source),
            field="schema_version",
            value=data["schema_version"],
            allowed=str(SCHEMA_VERSION),
        )
    document = validated(Document, data, str(source))
    return Measurement(source.name, hashlib.sha256(content).hexdigest()[:16], document)
