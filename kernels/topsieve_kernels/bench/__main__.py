"""Check and time the GPU kernels: `python -m topsieve_kernels.bench --out FILE.json or FOLDER [--shapes FILE.json]`.

Exit codes: 0 measured, 1 a result was wrong or a shape did not run, 2 no GPU or bad input. A folder gets a file named after GPU and date.
The file is written after every shape; a run that was stopped goes on where it was, on the same day, machine and versions.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from topsieve_kernels.bench.floors import Ceilings
from topsieve_kernels.bench.report import (
    document,
    earlier_run,
    file_name,
    measure_all,
    still_to_measure,
    table,
    write,
)
from topsieve_kernels.bench.shapes import FULL, SHAPES, read_shapes
from topsieve_kernels.bench.timing import clock_state, gpu_timer

COPY_BYTES = 1 << 32
MATMUL_SIDE = 8192


def _copy() -> Callable[[], object]:
    source = torch.randint(0, 255, (COPY_BYTES,), dtype=torch.uint8, device="cuda")
    destination = torch.empty_like(source)
    return lambda: destination.copy_(source)


def measured_ceilings(dtype: torch.dtype) -> Ceilings:
    """A copy of 4 GiB (bytes read and written) and a square matrix product, on random data."""
    copy = gpu_timer(_copy())
    a, b = (torch.randn(MATMUL_SIDE, MATMUL_SIDE, device="cuda").to(dtype) for _ in range(2))
    product = gpu_timer(lambda: a @ b)
    return Ceilings(2 * COPY_BYTES / (copy.median_us * 1e-6), 2 * MATMUL_SIDE**3 / (product.median_us * 1e-6))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark on the first CUDA device."""
    parser = argparse.ArgumentParser(prog="python -m topsieve_kernels.bench", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/gpu_bench.json"), help="a JSON file, or a folder")
    parser.add_argument("--kernel", choices=sorted(SHAPES), help="the shapes of this one only")
    parser.add_argument(
        "--shapes", type=Path, metavar="FILE.json", help="these too, e.g. the gpu_shapes.json of topsieve compare"
    )
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), default="bfloat16")
    parser.add_argument("--again", action="store_true", help="measure shapes that today's file already holds, too")
    options = parser.parse_args(arguments)
    try:
        shapes = tuple(dict.fromkeys((*FULL, *(read_shapes(options.shapes) if options.shapes else ()))))
    except ValueError as error:
        print(f"gpu-bench: {error}", file=sys.stderr)
        return 2
    if not torch.cuda.is_available():
        print("gpu-bench: no CUDA device here, nothing was measured", file=sys.stderr)
        return 2
    if options.kernel:
        shapes = tuple(shape for shape in shapes if shape.kernel == options.kernel)
    dtype, device = getattr(torch, options.dtype), torch.cuda.get_device_name()
    path = options.out / file_name(device) if options.out.is_dir() else options.out
    try:
        earlier = earlier_run(path, device, options.dtype)
    except ValueError as error:
        print(f"gpu-bench: {error}", file=sys.stderr)
        return 2
    kept: list[dict[str, Any]] = []
    kept_failed: list[dict[str, str]] = []
    if earlier is None:
        before, ceilings = clock_state(), measured_ceilings(dtype)
    else:
        before, ceilings = earlier["clock_before"], Ceilings(**earlier["ceilings"])
        kept, kept_failed, shapes = still_to_measure(earlier, shapes, options.again)
        _say(f"{path}: {len(kept)} shapes measured before, {len(shapes)} to go")

    def result(rows: list[dict[str, Any]], failed: list[dict[str, str]]) -> dict[str, Any]:
        return document(kept + rows, kept_failed + failed, ceilings, device, options.dtype, before, clock_state())

    rows, failed = measure_all(
        shapes, "cuda", dtype, ceilings, gpu_timer, clock_state, _say, lambda *found: write(result(*found), path)
    )
    whole = result(rows, failed)
    write(whole, path)
    print(table(whole))
    return 1 if whole["failed"] or not all(row["passed"] for row in whole["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
