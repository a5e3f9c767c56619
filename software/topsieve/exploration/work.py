"""What a worker does with a chunk of points: simulate each, or estimate all at once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topsieve.exploration.points import Chunk
from topsieve.exploration.spec import Mode
from topsieve_sim.errors import InputError

if TYPE_CHECKING:
    from topsieve_sim.arch import AcceleratorConfig
    from topsieve_sim.closed_form import ClosedForm
    from topsieve_sim.engine import Program

# What every point is measured by, in the order of the tables.
MEASURES = (
    "latency_cycles",
    "latency_us",
    "dram_bytes",
    "energy_pj",
    "power_w",
    "area_mm2",
    "query_rows",
    "lsb_rows",
)

UM2_PER_MM2 = 1e6


@dataclass(frozen=True)
class ChunkResult:
    """Rows of a chunk in its order, and what they took on this processor; times are no part of a row."""

    rows: tuple[Mapping[str, Any], ...]
    wall_seconds: float
    cpu_seconds: float


def run_chunk(chunk: Chunk) -> ChunkResult:
    """The rows of `chunk`: `key` with `MEASURES`, with `refused` where a machine cannot run its trace, with `failed` else."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = _simulated if chunk.mode is Mode.CYCLE else _estimated
    rows = tuple(answer(chunk))
    return ChunkResult(rows, time.perf_counter() - wall, time.process_time() - cpu)


@lru_cache(maxsize=2)
def _program(path: Path) -> Program:
    from topsieve_sim.engine import prepare
    from topsieve_sim.trace import load_trace

    return prepare(load_trace(path))


@lru_cache(maxsize=2)
def _closed(path: Path, seed: int) -> ClosedForm:
    from topsieve_sim.closed_form import ClosedForm

    return ClosedForm(_program(path), seed=seed)


def _simulated(chunk: Chunk) -> list[Mapping[str, Any]]:
    return [
        _guarded(key, lambda path=path, config=config: _cycle(path, config, chunk.seed))
        for key, path, config in chunk.items
    ]


def _guarded(key: str, measure: Any) -> Mapping[str, Any]:
    try:
        return {"key": key, **measure()}
    except InputError as error:
        return {"key": key, "refused": str(error)}
    except Exception as error:
        # Any other design of the sweep still has its answer; this one is named as what it is, a defect.
        return {"key": key, "failed": " ".join(f"{type(error).__name__}: {error}".split())}


def _cycle(path: Path, config: AcceleratorConfig, seed: int) -> dict[str, Any]:
    from topsieve_sim.engine import simulate

    report = simulate(_program(path), config, seed=seed)
    return {
        "latency_cycles": report.cycles,
        "latency_us": report.latency_us,
        "dram_bytes": report.dram_bytes_total,
        "energy_pj": report.energy_total_pj,
        "power_w": report.power_w,
        "area_mm2": report.area_total_um2 / UM2_PER_MM2,
        "query_rows": report.query_rows,
        "lsb_rows": report.lsb_rows,
    }


def _estimated(chunk: Chunk) -> list[Mapping[str, Any]]:
    """One call for all machines on a trace; where one of them does not fit, each for itself."""
    rows: dict[str, Mapping[str, Any]] = {}
    for path in dict.fromkeys(path for _, path, _ in chunk.items):
        items = [(key, config) for key, where, config in chunk.items if where == path]
        try:
            found = _closed_form(path, [config for _, config in items], chunk.seed)
            rows |= {key: {"key": key, **row} for (key, _), row in zip(items, found, strict=True)}
        except Exception:
            # One machine's refusal or defect is no other's answer: each alone then says which it was.
            for key, config in items:
                rows[key] = _guarded(key, lambda path=path, config=config: _closed_form(path, [config], chunk.seed)[0])
    return [rows[key] for key, _, _ in chunk.items]


def _closed_form(path: Path, configs: list[AcceleratorConfig], seed: int) -> list[dict[str, Any]]:
    found = _closed(path, seed).estimate(configs)
    columns = {
        "latency_cycles": found.cycles,
        "latency_us": found.latency_us,
        "dram_bytes": found.dram_bytes,
        "energy_pj": found.energy_pj,
        "power_w": found.power_w,
        "area_mm2": found.area_um2 / UM2_PER_MM2,
        "query_rows": found.query_rows,
        "lsb_rows": found.lsb_rows,
    }
    names = tuple(columns)
    return [
        dict(zip(names, values, strict=True)) for values in zip(*(c.tolist() for c in columns.values()), strict=True)
    ]
