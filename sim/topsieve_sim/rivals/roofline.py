"""Rooflines of GPUs and CPUs: no run is faster than its operations at peak or its bytes at full bandwidth.

Every platform is a YAML file in `topsieve_sim/rivals/platforms` with a source for each number. The bound takes fused
attention (queries, keys, values and outputs move once, scores never; what a causal mask hides is not computed), no launch,
no softmax: a real run is slower, often by an order of magnitude on one query.
"""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from topsieve_sim.engine.program import AttentionWork
from topsieve_sim.fields import PresetFolder
from topsieve_sim.rivals.heads import row_keys
from topsieve_sim.rivals.machine import Basis

PLATFORMS = PresetFolder("topsieve_sim.rivals", "platforms", "platform")


class Sourced(BaseModel):
    """A number of a data sheet, or of a benchmark's run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float = Field(gt=0)
    source: str = Field(min_length=10)
    status: Literal["data sheet", "derived", "measured"] = "data sheet"


class Platform(BaseModel):
    """A GPU or CPU. Peak and element width belong together: the arithmetic that attention uses there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    element_bytes: int = Field(ge=1, le=4, description="width of every operand in memory")
    kind: Literal["gpu", "cpu"] = "gpu"
    devices: tuple[str, ...] = Field(
        (), description="how the driver names it, so that a measurement finds its data sheet"
    )
    peak_gflops: Sourced
    bandwidth_gb_per_s: Sourced
    board_power_w: Sourced | None = Field(None, description="the most that the whole board is specified to draw")

    def microseconds(self, flops: float, moved_bytes: float) -> float:
        """The bound for one kernel."""
        return max(flops / self.peak_gflops.value, moved_bytes / self.bandwidth_gb_per_s.value) * 1e-3


def platform_names() -> tuple[str, ...]:
    """Names of the shipped platforms, sorted."""
    return PLATFORMS.names()


@lru_cache(maxsize=32)
def load_platform(name: str) -> Platform:
    """The platform `name`, or the one in the YAML file at that path.

    Raises
    ------
    InputError
        no such platform, or a file that is none.
    """
    return PLATFORMS.load(Platform, name)


class Roofline(BaseModel):
    """One platform as a row of a comparison."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str] = "roofline"
    title: ClassVar[str] = "roofline of a GPU or CPU"
    basis: ClassVar[Basis] = Basis.BOUND
    source: ClassVar[str] = "data sheets, see `topsieve_sim/rivals/platforms`"

    platform: str = Field("titan-xp", description="a platform's name or a YAML file")

    @property
    def label(self) -> str:
        """As `build` reads it."""
        return f"{self.name}:platform={self.platform}"

    def moved_bytes(self, work: AttentionWork) -> int:
        """Queries, keys, values and outputs of a descriptor, each once."""
        op = work.query_key
        rows, keys = 2 * work.heads * op.queries, 2 * work.kv_heads * op.keys
        return (rows + keys) * op.head_dim * load_platform(self.platform).element_bytes

    def microseconds(self, work: AttentionWork) -> float:
        """The bound of a descriptor; every score and value that the mask allows counts."""
        op = work.query_key
        flops = 4 * work.heads * int(row_keys(op).sum()) * op.head_dim
        return load_platform(self.platform).microseconds(flops, self.moved_bytes(work))
