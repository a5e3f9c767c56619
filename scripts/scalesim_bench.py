"""One head of a BERT-base attention layer on a 32 x 32 systolic array: our count beside SCALE-Sim's, and the time of each.

Both run in this call, on this machine. SCALE-Sim needs an older numpy, so it has its own Python: `make scalesim` makes one, or
TOPSIEVE_SCALESIM_PYTHON names one; without it the comparison is left out. It counts equal heads one by one, so a layer of twelve
takes twelve times as long there.
"""

from __future__ import annotations

import csv
import os
import subprocess
import tempfile
import time
from pathlib import Path

from topsieve_sim.rivals import Dataflow, systolic_cycles

ARRAY = 32
TOKENS, HEAD_DIM = 384, 64
# [m, n, k] of scores and of the weighted sum.
PRODUCTS = ((TOKENS, TOKENS, HEAD_DIM), (TOKENS, HEAD_DIM, TOKENS))
REPEATS = 10_000
# What `make scalesim` makes.
MADE = Path(__file__).resolve().parents[1] / ".venv-scalesim" / "bin" / "python"


def main() -> None:
    """Print a line a dataflow.

    Raises
    ------
    RuntimeError
        the counts differ.
    """
    python = os.environ.get("TOPSIEVE_SCALESIM_PYTHON") or (str(MADE) if MADE.exists() else "")
    if not python:
        print("SCALE-Sim: left out, it is not installed (make scalesim)")
        return
    print(
        f"{'one head of BERT-base, 384 tokens':36} {'cycles':>8} {'SCALE-Sim CPU-s':>16} {'ours CPU-s':>12} {'ratio':>10}"
    )
    for dataflow in (Dataflow.WEIGHT_STATIONARY, Dataflow.OUTPUT_STATIONARY):
        start = time.process_time()
        for _ in range(REPEATS):
            ours = [systolic_cycles(m, n, k, ARRAY, ARRAY, dataflow) for m, n, k in PRODUCTS]
        seconds = (time.process_time() - start) / REPEATS
        theirs = scalesim_rows(python, dataflow)
        counts = [int(row["total_cycles"]) - int(row["stall_cycles"]) for row in theirs]
        if counts != ours:
            raise RuntimeError(f"SCALE-Sim counts {counts} cycles, the closed form {ours}")
        their_seconds = sum(float(row["cpu_seconds"]) for row in theirs)
        name = f"{ARRAY} x {ARRAY}, {dataflow.value}"
        print(f"{name:36} {sum(ours):8} {their_seconds:16.2f} {seconds:12.2e} {their_seconds / seconds:10.1e}")


def scalesim_rows(python: str, dataflow: Dataflow) -> list[dict[str, str]]:
    """What SCALE-Sim reports for both products."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "products.csv"
        lines = [f"{dataflow.value},{ARRAY},{ARRAY},{m},{n},{k}" for m, n, k in PRODUCTS]
        wanted.write_text("\n".join(["dataflow,array_rows,array_columns,m,n,k", *lines]) + "\n", encoding="utf-8")
        script = Path(__file__).with_name("scalesim_cycles.py")
        ran = subprocess.run([python, script, wanted], capture_output=True, text=True, check=True)
    return list(csv.DictReader(ran.stdout.splitlines()))


if __name__ == "__main__":
    main()
