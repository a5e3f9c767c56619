"""`Report`: everything one simulation says, typed and frozen, with the laws that hold between its numbers."""

from __future__ import annotations

import hashlib
import json
import math
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.errors import InputError
from topsieve_sim.fields import validated
from topsieve_sim.files import written_whole


class Unit(StrEnum):
    """Units whose cycles are accounted for; one row of the unit table and one track of the timeline each."""

    MEMORY = "memory"
    DOT_PRODUCT = "dot_product"
    SOFTMAX_FILL = "softmax_fill"
    SOFTMAX_EXPONENTIAL = "softmax_exponential"
    SOFTMAX_NORMALISE = "softmax_normalise"
    VALUE_TOPK = "value_topk"
    WEIGHTED_SUM = "weighted_sum"
    IMPORTANCE = "importance"
    CASCADE_TOPK = "cascade_topk"


class Stall(StrEnum):
    """Why a unit did no work in a cycle; every such cycle has exactly one cause."""

    INPUT = "input"  # the unit before it has not delivered
    MEMORY = "memory"  # its operand has not come from memory
    DOWNSTREAM = "downstream"  # the unit behind it has no room
    DRAINED = "drained"  # its share of the running operation is done, or not yet begun
    IDLE = "idle"  # the running operation does not use it


class Traffic(StrEnum):
    """What DRAM bytes are moved for. `OUTPUT` and the `WRITE`s are written, the others read."""

    QUERY = "query"
    KEY_MSB = "key_msb"
    KEY_LSB = "key_lsb"
    VALUE = "value"
    OUTPUT = "output"
    VECTOR_READ = "vector_read"
    VECTOR_WRITE = "vector_write"
    WEIGHT = "weight"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class UnitRow(_Row):
    """Cycles of one unit: `busy_cycles` and `stall_cycles` by cause add up to the report's `cycles`."""

    unit: Unit
    busy_cycles: int = Field(ge=0)
    stall_cycles: dict[Stall, int]

    @property
    def total_cycles(self) -> int:
        """Busy and stalled cycles together."""
        return self.busy_cycles + sum(self.stall_cycles.values())


class OperationRow(_Row):
    """All operations of one kind; host work has no cycles, bytes or energy here."""

    kind: str
    where: Literal["accelerator", "host"]
    count: int = Field(ge=1)
    macs: int = Field(ge=0)
    flops: int = Field(ge=0)
    cycles: int = Field(ge=0)
    dram_bytes: int = Field(ge=0)
    energy_pj: float = Field(ge=0)


class SelectionCost(_Row):
    """What it costs to score, choose and merge: the part of the totals that the plain model would not pay.

    `cycles` and `dram_bytes` are of descriptors that do nothing else. `overlapped_cycles` are those in which attention
    selects its local values: that unit works beside the others, so they are no part of `cycles`. `energy_pj` is of the
    descriptors (leakage included) and, inside attention, of sums over probabilities and outputs and of local selection.
    """

    cycles: int = Field(ge=0)
    overlapped_cycles: int = Field(ge=0)
    dram_bytes: int = Field(ge=0)
    energy_pj: float = Field(ge=0)


class LayerRow(_Row):
    """Totals of one layer over all sequences and steps; layer -1 stands outside the layers."""

    layer: int = Field(ge=-1)
    operations: int = Field(ge=1)
    cycles: int = Field(ge=0)
    macs: int = Field(ge=0)
    flops: int = Field(ge=0)
    dram_bytes: int = Field(ge=0)
    energy_pj: float = Field(ge=0)
    query_rows: int = Field(ge=0)
    lsb_rows: int = Field(ge=0)


class TokenRow(_Row):
    """Attention of one layer for one sequence and step: how many tokens were still there."""

    sequence: int = Field(ge=0)
    step: int = Field(ge=0)
    layer: int = Field(ge=-1)
    heads: int = Field(ge=1)
    queries: int = Field(ge=1)
    keys: int = Field(ge=1)
    kept_values: int = Field(ge=1)
    lsb_rows: int = Field(ge=0)
    cycles: int = Field(ge=0)


class Slice(_Row):
    """A stretch of the timeline: `unit` works on `name`, `busy_cycles` of its `duration_cycles`."""

    unit: Unit
    name: str
    start_cycle: int = Field(ge=0)
    duration_cycles: int = Field(ge=1)
    busy_cycles: int = Field(ge=0)


class Timing(_Row):
    """Time the simulation itself took; no part of a report's identity."""

    wall_seconds: float = Field(ge=0)
    cpu_seconds: float = Field(ge=0)


class Report(_Row):
    """Result of one simulation.

    Laws, checked on construction: each unit's cycles sum to `cycles`; bytes and energies sum to their totals (energy to a
    relative 1e-9); cycles, bytes and energy of the layers, and of the operations, sum to the totals.

    Raises
    ------
    pydantic.ValidationError
        a law is broken or a field is out of range.
    """

    version: Literal[2] = 2
    accelerator: AcceleratorConfig
    accelerator_digest: str
    model: str
    method: str
    seed: int
    versions: dict[str, str]
    cycles: int = Field(ge=0, description="core cycles of everything that runs on the accelerator")
    latency_us: float = Field(ge=0)
    macs: int = Field(ge=0, description="multiply-accumulates of all operations, host work included")
    flops: int = Field(ge=0, description="as torch.utils.flop_counter counts them; host work included")
    attention_flops: int = Field(ge=0, description="of QK and PV products")
    attention_flops_dense: int = Field(ge=0, description="the same with the widest layer's tokens and heads everywhere")
    query_rows: int = Field(ge=0)
    lsb_rows: int = Field(ge=0, description="query rows that were recomputed with LSBs")
    dram_bytes: dict[Traffic, int]
    dram_bytes_total: int = Field(ge=0)
    energy_pj: dict[str, dict[str, float]] = Field(description="by component and action")
    energy_total_pj: float = Field(ge=0)
    area_um2: dict[str, float]
    area_total_um2: float = Field(ge=0)
    operations: tuple[OperationRow, ...]
    selection: SelectionCost
    layers: tuple[LayerRow, ...]
    tokens: tuple[TokenRow, ...]
    units: tuple[UnitRow, ...]
    timeline: tuple[Slice, ...]
    notes: tuple[str, ...]
    timing: Timing | None = None

    @model_validator(mode="after")
    def _laws(self) -> Report:
        for row in self.units:
            if row.total_cycles != self.cycles:
                raise ValueError(f"unit {row.unit} accounts for {row.total_cycles} of {self.cycles} cycles")
        energies = [value for actions in self.energy_pj.values() for value in actions.values()]
        sums = {
            "dram_bytes": (sum(self.dram_bytes.values()), self.dram_bytes_total),
            "energy_pj": (math.fsum(energies), self.energy_total_pj),
            "area_um2": (math.fsum(self.area_um2.values()), self.area_total_um2),
            "layers.cycles": (sum(row.cycles for row in self.layers), self.cycles),
            "layers.dram_bytes": (sum(row.dram_bytes for row in self.layers), self.dram_bytes_total),
            "layers.energy_pj": (math.fsum(row.energy_pj for row in self.layers), self.energy_total_pj),
            "operations.cycles": (sum(row.cycles for row in self.operations), self.cycles),
            "operations.dram_bytes": (sum(row.dram_bytes for row in self.operations), self.dram_bytes_total),
            "operations.energy_pj": (math.fsum(row.energy_pj for row in self.operations), self.energy_total_pj),
        }
        for name, (parts, total) in sums.items():
            if not math.isclose(parts, total, rel_tol=1e-9, abs_tol=0.0):
                raise ValueError(f"{name} add up to {parts}, the total is {total}")
        return self

    @property
    def power_w(self) -> float:
        """Average power over the run in watts, DRAM included; 0 for an empty run."""
        return self.energy_total_pj / self.latency_us * 1e-6 if self.cycles else 0.0

    @property
    def attention_tflops(self) -> float:
        """Executed attention operations a second, in TFLOPS."""
        return self.attention_flops / self.latency_us * 1e-6 if self.cycles else 0.0

    @property
    def digest(self) -> str:
        """First 16 hex digits of the SHA-256 of `to_json()`; equal for identical runs."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def component_energy_pj(self) -> dict[str, float]:
        """Energy by component, in picojoules."""
        return {name: math.fsum(actions.values()) for name, actions in self.energy_pj.items()}

    def to_json(self, *, timing: bool = False) -> str:
        """JSON text, equal to the byte for identical runs; `timing` adds the simulator's own time."""
        data = self.model_dump(mode="json", exclude=None if timing else {"timing"})
        return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    def write_json(self, path: str | Path, *, timing: bool = False) -> None:
        """Write `to_json` to `path`, whole or not at all."""
        with written_whole(path) as stream:
            stream.write(self.to_json(timing=timing))


def load_report(path: str | Path) -> Report:
    """Read a report written by `Report.write_json`.

    Raises
    ------
    InputError
        the file is missing, not JSON, or not a valid report.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", source=str(path)) from error
    except ValueError as error:
        raise InputError(f"not JSON: {error}", source=str(path)) from error
    return validated(Report, data, str(path))


def report_schema() -> dict[str, Any]:
    """JSON schema of `Report.to_json`."""
    return Report.model_json_schema(mode="serialization")
