"""The result of a run as one JSON document and one table; times in microseconds."""

import json
import os
import platform
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from topsieve_kernels.backend import HAS_TRITON
from topsieve_kernels.bench import SCHEMA_VERSION
from topsieve_kernels.bench.cases import BenchCase, bench_case
from topsieve_kernels.bench.floors import Ceilings
from topsieve_kernels.bench.shapes import Shape, shape_of
from topsieve_kernels.bench.timing import Timer, Timing

_NUMBER: dict[str, Any] = {"type": "number", "minimum": 0}
_MAYBE: dict[str, Any] = {"type": ["number", "null"], "minimum": 0}
_TIMING: dict[str, Any] = {
    "type": "object",
    "required": ["median_us", "fastest_us", "slowest_us", "repeats", "method", "board_power_w", "board_energy_uj"],
    "additionalProperties": False,
    "properties": {
        "median_us": _NUMBER,
        "fastest_us": _NUMBER,
        "slowest_us": _NUMBER,
        "repeats": {"type": "integer", "minimum": 1},
        "method": {"enum": ["graph", "events", "wall_clock"]},
        # Of the whole board while the call repeats, and that times the median; null where the board does not tell.
        "board_power_w": _MAYBE,
        "board_energy_uj": _MAYBE,
    },
}
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["schema_version", "date", "dtype", "machine", "ceilings", "clock_before", "clock_after", "rows", "failed"],
    "additionalProperties": False,
    "properties": {
        "schema_version": {"const": SCHEMA_VERSION},
        "date": {"type": "string", "format": "date"},
        "dtype": {"type": "string"},
        "machine": {"type": "object", "required": ["device", "torch", "triton", "python"]},
        "ceilings": {
            "type": "object",
            "required": ["copy_bytes_per_s", "matmul_flops_per_s"],
            "properties": {"copy_bytes_per_s": _NUMBER, "matmul_flops_per_s": _NUMBER},
        },
        # Shapes that could not be run at all, and why; the others are measured all the same.
        "failed": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["kernel", "shape", "error"],
                "additionalProperties": False,
                "properties": {name: {"type": "string"} for name in ("kernel", "shape", "error")},
            },
        },
        "clock_before": {"type": "object", "additionalProperties": {"type": "string"}},
        "clock_after": {"type": "object", "additionalProperties": {"type": "string"}},
        "rows": {
            "type": "array",
            "items": {
                "type": "object",
                "required": [
                    "kernel", "shape", "dimensions", "passed", "error_over_bound", "memory_bytes", "flops", "floor_us", "bound_by",
                    "ours", "fraction_of_floor", "baselines", "clock",
                ],
                "additionalProperties": False,
                "properties": {
                    "kernel": {"type": "string"},
                    "shape": {"type": "string"},
                    "dimensions": {"type": "object", "additionalProperties": {"type": ["number", "boolean"]}},
                    "passed": {"type": "boolean"},
                    "error_over_bound": {"type": ["number", "null"]},
                    "memory_bytes": {"type": "integer", "minimum": 1},
                    "flops": {"type": "integer", "minimum": 0},
                    "floor_us": _NUMBER,
                    "bound_by": {"enum": ["memory", "matmul"]},
                    "ours": _TIMING,
                    "fraction_of_floor": _NUMBER,
                    "clock": {"type": "object", "additionalProperties": {"type": "string"}},
                    "baselines": {
                        "type": "object",
                        "additionalProperties": {
                            "oneOf": [
                                {
                                    "type": "object",
                                    "required": ["timing", "ours_over_baseline"],
                                    "additionalProperties": False,
                                    "properties": {"timing": _TIMING, "ours_over_baseline": _NUMBER},
                                },
                                {
                                    "type": "object",
                                    "required": ["unavailable"],
                                    "additionalProperties": False,
                                    "properties": {"unavailable": {"type": "string"}},
                                },
                            ]
                        },
                    },
                },
            },
        },
    },
}  # fmt: skip


def measure(case: BenchCase, ceilings: Ceilings, timer: Timer, clock: dict[str, str]) -> dict[str, Any]:
    """Check and time one case; a baseline that cannot run here is recorded with its reason."""
    ratio = case.check()
    ours = timer(case.ours)
    floor_us = case.work.floor_us(ceilings)
    baselines: dict[str, Any] = {}
    for name, call in case.baselines.items():
        try:
            timing = timer(call)
        except Exception as error:  # of a vendor, a compiler or a mask that this machine's version does not know
            baselines[name] = {"unavailable": _reason(error)}
            continue
        baselines[name] = {"timing": _timing(timing), "ours_over_baseline": ours.median_us / timing.median_us}
    return {
        "kernel": case.shape.kernel,
        "shape": str(case.shape),
        "dimensions": asdict(case.shape),
        "passed": ratio <= 1,
        # JSON has neither NaN nor infinity.
        "error_over_bound": ratio if ratio < float("inf") else None,
        "memory_bytes": case.work.memory_bytes,
        "flops": case.work.flops,
        "floor_us": floor_us,
        "bound_by": case.work.bound_by(ceilings),
        "ours": _timing(ours),
        "fraction_of_floor": floor_us / ours.median_us,
        "baselines": baselines,
        "clock": clock,
    }


def measure_all(
    shapes: Iterable[Shape],
    device: str,
    dtype: torch.dtype,
    ceilings: Ceilings,
    timer: Timer,
    clock: Callable[[], dict[str, str]],
    say: Callable[[str], None] = lambda line: None,
    keep: Callable[[list[dict[str, Any]], list[dict[str, str]]], None] = lambda rows, failed: None,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Measure every shape; the rows, and the shapes that could not be run with their reasons.

    `keep` gets both after every shape, so that a run that is stopped loses one shape at most.
    """
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    for shape in shapes:
        try:
            rows.append(measure(bench_case(device, shape, dtype), ceilings, timer, clock()))
            outcome = f"{rows[-1]['ours']['median_us']:.1f} us"
        except Exception as error:
            # Whatever one shape runs into, minutes on a GPU are too dear to lose the others.
            outcome = _reason(error)
            failed.append({"kernel": shape.kernel, "shape": str(shape), "error": outcome})
        say(f"{shape.kernel} {shape}: {outcome}")
        keep(rows, failed)
    return rows, failed


def _reason(error: Exception) -> str:
    first_line, *_ = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {first_line}"


def _timing(timing: Timing) -> dict[str, Any]:
    return {**asdict(timing), "board_energy_uj": timing.board_energy_uj}


def document(
    rows: list[dict[str, Any]],
    failed: list[dict[str, str]],
    ceilings: Ceilings,
    device: str,
    dtype: str,
    before: dict[str, str],
    after: dict[str, str],
) -> dict[str, Any]:
    """The whole run, as `SCHEMA` describes it, with today's date."""
    return {
        "schema_version": SCHEMA_VERSION,
        "date": _today(),
        "dtype": dtype,
        "machine": _machine(device),
        "ceilings": vars(ceilings),
        "clock_before": before,
        "clock_after": after,
        "rows": rows,
        "failed": failed,
    }


def earlier_run(path: Path, device: str, dtype: str) -> dict[str, Any] | None:
    """The document at `path` where it can be gone on with: this machine, these versions and this dtype, today.

    Raises
    ------
    ValueError
        one line that names the file: it is of this run, and not what a run writes.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    wanted = {"schema_version": SCHEMA_VERSION, "date": _today(), "dtype": dtype, "machine": _machine(device)}
    if any(found.get(name) != value for name, value in wanted.items()):
        return None
    try:
        still_to_measure(found, ())
        Ceilings(**found["ceilings"]), found["clock_before"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a whole measurement ({error!r}); remove it to measure anew") from error
    return found


def still_to_measure(
    earlier: dict[str, Any], shapes: Iterable[Shape], again: bool = False
) -> tuple[list[dict[str, Any]], list[dict[str, str]], tuple[Shape, ...]]:
    """Rows and failures of a document that stay, and which of `shapes` are to be measured: those without a row that passed.

    With `again` it is all of them. What was not asked for stays as it is.
    """
    asked = tuple(shapes)
    passed = {shape_of(row["kernel"], row["dimensions"]) for row in earlier["rows"] if row["passed"]}
    todo = tuple(shape for shape in asked if again or shape not in passed)
    names = {(shape.kernel, str(shape)) for shape in todo}
    rows, failed = (
        [entry for entry in earlier[part] if (entry["kernel"], entry["shape"]) not in names]
        for part in ("rows", "failed")
    )
    return rows, failed, todo


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _machine(device: str) -> dict[str, str]:
    triton_version = "none"
    if HAS_TRITON:
        import triton

        triton_version = triton.__version__
    return {
        "device": device,
        "torch": torch.__version__,
        "triton": triton_version,
        "python": platform.python_version(),
    }


def table(result: dict[str, Any]) -> str:
    """A text table: one line per case, then one per baseline."""
    ceilings = result["ceilings"]
    lines = [
        f"{result['machine']['device']}, {result['dtype']}, {result['date']}: "
        f"copy {ceilings['copy_bytes_per_s'] / 1e12:.2f} TB/s, "
        f"matrix product {ceilings['matmul_flops_per_s'] / 1e12:.0f} TFLOP/s (both measured in this run)",
        f"{'kernel':<22} {'shape':<44} {'check':>6} {'time_us':>10} {'floor_us':>10} {'floor/time':>10} {'bound by':>9} "
        f"{'board_w':>8} {'board_uj':>12} {'ours/this':>10}",
    ]
    for row in result["rows"]:
        lines.append(
            f"{row['kernel']:<22} {row['shape']:<44} {'ok' if row['passed'] else 'WRONG':>6} "
            f"{row['ours']['median_us']:>10.1f} {row['floor_us']:>10.1f} {row['fraction_of_floor']:>10.2f} "
            f"{row['bound_by']:>9} {_power(row['ours'])}"
        )
        for name, baseline in row["baselines"].items():
            if "unavailable" in baseline:
                lines.append(f"    {name:<64} unavailable: {baseline['unavailable'][:60]}")
            else:
                lines.append(
                    f"    {name:<70} {baseline['timing']['median_us']:>10.1f} {'':>31} "
                    f"{_power(baseline['timing'])} {baseline['ours_over_baseline']:>10.2f}"
                )
    lines += [f"{found['kernel']:<22} {found['shape']:<44} FAILED {found['error']}" for found in result["failed"]]
    for name in ("clock_before", "clock_after"):
        lines.append(f"{name}: " + (", ".join(f"{key} {value}" for key, value in result[name].items()) or "not known"))
    return "\n".join(lines)


def _power(timing: dict[str, Any]) -> str:
    if timing["board_power_w"] is None:
        return f"{'-':>8} {'-':>12}"
    return f"{timing['board_power_w']:>8.0f} {timing['board_energy_uj']:>12.0f}"


def file_name(device: str) -> str:
    """A GPU's name and today's date, as a file name."""
    return f"{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}-{_today()}.json"


def write(result: dict[str, Any], path: Path) -> None:
    """Write the document whole: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")
    os.replace(temporary, path)
