"""Files as `make gpu-bench` writes them, by the benchmark's own code on the CPU, with invented times: never a measurement."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from topsieve_kernels.bench.floors import Ceilings
from topsieve_kernels.bench.report import document, measure_all, write
from topsieve_kernels.bench.shapes import Shape
from topsieve_kernels.bench.timing import Timing, summary

CEILINGS = Ceilings(2e12, 500e12)
H100 = "NVIDIA H100 80GB HBM3"


def invented(first_us: float = 10.0, watts: float | None = None) -> Callable[[Callable[[], object]], Timing]:
    """A timer that answers first_us, first_us + 1, ... in the order it is asked, and really runs each call once."""
    times = itertools.count()

    def timer(call: Callable[[], object]) -> Timing:
        call()
        us = first_us + next(times)
        return replace(summary([us], "graph"), board_power_w=watts)

    return timer


def bench_document(
    shapes: Iterable[Shape], *, first_us: float = 10.0, watts: float | None = None, device: str = H100
) -> dict[str, Any]:
    """What the benchmark says of `shapes`; every kernel is checked as on a GPU."""
    rows, failed = measure_all(shapes, "cpu", torch.float32, CEILINGS, invented(first_us, watts), dict)
    assert not failed, failed
    return document(rows, failed, CEILINGS, device, "float16", {}, {})


def bench_file(path: Path, shapes: Iterable[Shape], **more: Any) -> Path:
    """Write `bench_document` to `path`."""
    write(bench_document(shapes, **more), path)
    return path


def changed(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The file at `path` with its content changed in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path
