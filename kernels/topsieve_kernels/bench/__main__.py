"""`python -m topsieve_kernels.bench [--out results/gpu_bench.json] [--kernel NAME]`: exit 0 measured, 1 wrong, 2 no GPU."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from topsieve_kernels.bench.cases import FULL, bench_cases
from topsieve_kernels.bench.floors import Ceilings
from topsieve_kernels.bench.report import document, measure, table, write
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


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark on the first CUDA device."""
    parser = argparse.ArgumentParser(prog="python -m topsieve_kernels.bench", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results/gpu_bench.json"), help="where the JSON goes")
    parser.add_argument("--kernel", choices=sorted(FULL), type=str.upper, help="only these cases")
    parser.add_argument("--dtype", choices=("float16", "bfloat16"), default="bfloat16")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("gpu-bench: no CUDA device here, nothing was measured", file=sys.stderr)
        return 2
    dtype = getattr(torch, options.dtype)
    sizes = FULL if options.kernel is None else {name: FULL[name] if name == options.kernel else [] for name in FULL}
    before = clock_state()
    ceilings = measured_ceilings(dtype)
    rows = []
    for case in bench_cases("cuda", sizes, dtype):
        rows.append(measure(case, ceilings, gpu_timer, clock_state()))
        print(f"{case.kernel} {case.shape}: {rows[-1]['ours']['median_us']:.1f} us", file=sys.stderr, flush=True)
    result = document(rows, ceilings, torch.cuda.get_device_name(), before, clock_state())
    write(result, options.out)
    print(table(result))
    return 0 if all(row["passed"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
