"""`Gpu`: a data sheet, and a measurement where there is one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topsieve.gpu.measurement import ELEMENT_BYTES, Measurement, load_measurement
from topsieve_sim.errors import InputError
from topsieve_sim.rivals.roofline import Platform, Sourced, load_platform, platform_names

# Without a measurement.
DEFAULT = "h100-sxm"
# What `make gpu-bench` wrote and somebody committed.
MEASURED = Path(__file__).parent / "measured"


@dataclass(frozen=True)
class Gpu:
    """A GPU: `platform` bounds what `measurement` (None: nothing) does not hold."""

    platform: Platform
    measurement: Measurement | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What a result says about it, as plain data."""
        platform = self.platform.model_dump(mode="json", exclude={"devices", "kind"})
        return {**platform, "measurement": self.measurement and self.measurement.facts}


def gpu_names() -> tuple[str, ...]:
    """GPUs whose data sheet is shipped, sorted."""
    return tuple(name for name in platform_names() if load_platform(name).kind == "gpu")


def load_gpu(name: str | None = None, measured: Path = MEASURED) -> Gpu:
    """The GPU that `name` says, with the newest of its measurements in the folder `measured`.

    Parameters
    ----------
    name : a shipped data sheet's name, a YAML file of one, or a JSON file of `make gpu-bench`. None: the GPU of the newest
        committed measurement, or `DEFAULT` where there is none. A measured GPU without a data sheet is bounded by the
        ceilings of its own run, and its board power is known only where it was measured.

    Raises
    ------
    InputError
        no such GPU, or a file that is not what it should be.
    """
    if name is not None and name.endswith(".json"):
        return _of(load_measurement(name))
    committed = [load_measurement(path) for path in sorted(measured.glob("*.json"))]
    if name is None:
        newest = _newest(committed)
        return Gpu(load_platform(DEFAULT)) if newest is None else _of(newest)
    if name not in gpu_names() and not name.endswith((".yaml", ".yml")):
        allowed = f"{', '.join(gpu_names())}, a YAML file of a data sheet, or a JSON file of make gpu-bench"
        raise InputError("unknown GPU", source="--gpu", value=name, allowed=allowed)
    platform = load_platform(name)
    return Gpu(platform, _newest([one for one in committed if one.device in platform.devices]))


def _newest(measurements: list[Measurement]) -> Measurement | None:
    return max(measurements, key=lambda one: (one.document.date, one.name), default=None)


def _of(measurement: Measurement) -> Gpu:
    for name in gpu_names():
        platform = load_platform(name)
        if measurement.device in platform.devices:
            return Gpu(platform, measurement)
    ceilings = measurement.document.ceilings
    source = f"ceiling of the run in {measurement.name}"
    return Gpu(
        Platform(
            name=measurement.device,
            title=measurement.device,
            element_bytes=ELEMENT_BYTES[measurement.document.dtype],
            devices=(measurement.device,),
            peak_gflops=Sourced(value=ceilings.matmul_flops_per_s / 1e9, source=source, status="measured"),
            bandwidth_gb_per_s=Sourced(value=ceilings.copy_bytes_per_s / 1e9, source=source, status="measured"),
        ),
        measurement,
    )
