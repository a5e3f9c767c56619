"""`gpu_cost`: time and energy of kernel calls on a GPU, each measured or bounded, and said which."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from topsieve.gpu.machine import Gpu
from topsieve.gpu.ops import GpuOp, Part
from topsieve.gpu.work import Counted


class Source(StrEnum):
    """Where a time comes from."""

    MEASURED = "measured"
    """On the GPU, by `make gpu-bench`, at this shape."""
    ROOFLINE = "roofline"
    """Of the data sheet: a lower bound of the time, without launches."""
    MIXED = "mixed"
    """A total of both."""


class PowerSource(StrEnum):
    """Where the watts come from that a time is multiplied with."""

    MEASURED = "measured"
    """Of the board, while the same call repeated."""
    DATA_SHEET = "data sheet"
    """The most that the board may draw."""
    MIXED = "mixed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class OpCost:
    """One kernel call on the GPU.

    bound_us : its roofline, measured or not. energy_uj : None where no power is known.
    """

    op: GpuOp
    count: int
    time_us: float
    source: Source
    bound_us: float
    energy_uj: float | None
    power: PowerSource


@dataclass(frozen=True)
class GpuCost:
    """A list of kernel calls on a GPU, one after the other.

    `time_us` = `measured_us` + `roofline_us`. `bound_us` is the roofline of all calls.
    """

    gpu: Gpu
    ops: tuple[OpCost, ...]

    @cached_property
    def time_us(self) -> float:
        """Of all calls."""
        return _total(self.ops)

    @cached_property
    def measured_us(self) -> float:
        """Of the calls that were measured."""
        return _total(cost for cost in self.ops if cost.source is Source.MEASURED)

    @cached_property
    def roofline_us(self) -> float:
        """Bounds of the calls that were not."""
        return _total(cost for cost in self.ops if cost.source is Source.ROOFLINE)

    @cached_property
    def bound_us(self) -> float:
        """Bounds of all calls."""
        return math.fsum(cost.count * cost.bound_us for cost in self.ops)

    @cached_property
    def energy_uj(self) -> float | None:
        """Of all calls; None where the power of one is unknown."""
        parts = [(cost.count, cost.energy_uj) for cost in self.ops]
        return (
            None if any(each is None for _, each in parts) else math.fsum(count * each for count, each in parts if each)
        )

    @property
    def calls(self) -> int:
        """Kernel calls in all."""
        return sum(cost.count for cost in self.ops)

    @property
    def measured_share(self) -> float:
        """Share of the calls whose time was measured, 0 to 1."""
        measured = sum(cost.count for cost in self.ops if cost.source is Source.MEASURED)
        return measured / self.calls if self.calls else 0.0

    @property
    def source(self) -> Source:
        """Of the total."""
        kinds = {cost.source for cost in self.ops}
        return Source.ROOFLINE if not kinds else next(iter(kinds)) if len(kinds) == 1 else Source.MIXED

    @property
    def power(self) -> PowerSource:
        """Of the total's energy."""
        kinds = {cost.power for cost in self.ops}
        if PowerSource.UNKNOWN in kinds or not kinds:
            return PowerSource.UNKNOWN
        return next(iter(kinds)) if len(kinds) == 1 else PowerSource.MIXED

    def summary(self, latency_us: float, energy_pj: float) -> dict[str, Any]:
        """As plain data, beside an accelerator that takes `latency_us` and `energy_pj` for the same work."""
        energy = self.energy_uj
        return {
            "time_us": self.time_us,
            "source": self.source.value,
            "measured_us": self.measured_us,
            "roofline_us": self.roofline_us,
            "bound_us": self.bound_us,
            "calls": self.calls,
            "measured_share": self.measured_share,
            "energy_uj": energy,
            "power_source": self.power.value,
            "accelerator_over_gpu_time": _ratio(latency_us, self.time_us),
            "accelerator_over_gpu_energy": None if energy is None else _ratio(energy_pj * 1e-6, energy),
        }


# In a comparison's results: a method on the GPU, as `GpuCost.summary` says it.
GPU_KEY = "gpu"
# Columns of tables, by the names that they have in a `GpuCost.summary`.
COLUMNS = {
    "gpu_us": "time_us",
    "gpu_energy_uj": "energy_uj",
    "gpu_source": "source",
    "gpu_power_source": "power_source",
    "gpu_measured_share": "measured_share",
    "accelerator_over_gpu_time": "accelerator_over_gpu_time",
    "accelerator_over_gpu_energy": "accelerator_over_gpu_energy",
}


def gpu_columns(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A `GpuCost.summary` as columns of a table of methods."""
    return {column: summary[name] for column, name in COLUMNS.items()}


def gpu_cost(work: Sequence[Counted], gpu: Gpu) -> GpuCost:
    """Price `work` on `gpu`: the fastest measured way to each call where the measurement has its shape, else its roofline."""
    return GpuCost(gpu, tuple(_op_cost(one, gpu) for one in work))


def _op_cost(counted: Counted, gpu: Gpu) -> OpCost:
    op, platform = counted.op, gpu.platform
    work = op.work(platform.element_bytes)
    bound_us = platform.microseconds(work.flops, work.memory_bytes)
    board_w = platform.board_power_w.value if platform.board_power_w else None
    known = None if gpu.measurement is None else _measured(op, gpu)
    if known is not None:
        time_us, energy_uj = known
        if energy_uj is not None:
            return OpCost(op, counted.count, time_us, Source.MEASURED, bound_us, energy_uj, PowerSource.MEASURED)
        source = Source.MEASURED
    else:
        time_us, source = bound_us, Source.ROOFLINE
    power = PowerSource.UNKNOWN if board_w is None else PowerSource.DATA_SHEET
    return OpCost(op, counted.count, time_us, source, bound_us, None if board_w is None else board_w * time_us, power)


def _measured(op: GpuOp, gpu: Gpu) -> tuple[float, float | None] | None:
    """Microseconds of the fastest way that was measured whole, and microjoules where its power was."""
    ways = [known for known in (_way(parts, gpu) for parts in op.ways()) if known is not None]
    return min(ways, key=lambda known: known[0], default=None)


def _way(parts: Sequence[Part], gpu: Gpu) -> tuple[float, float | None] | None:
    assert gpu.measurement is not None
    time_us, energy_uj = 0.0, 0.0
    powered = True
    for part in parts:
        timing = gpu.measurement.fastest(part)
        if timing is None:
            return None
        time_us += part.times * timing.median_us
        powered = powered and timing.board_power_w is not None
        energy_uj += part.times * timing.median_us * (timing.board_power_w or 0.0)
    return time_us, energy_uj if powered else None


def _total(costs: Iterable[OpCost]) -> float:
    return math.fsum(cost.count * cost.time_us for cost in costs)


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
