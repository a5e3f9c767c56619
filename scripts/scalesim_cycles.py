"""Cycles that SCALE-Sim counts for matrix products; run by a Python that has `scalesim` 3.0.0 and numpy 1.26.

    make scalesim
    .venv-scalesim/bin/python scripts/scalesim_cycles.py tests/data/scalesim/cycles.csv > again.csv

Reads a CSV with the columns dataflow, array_rows, array_columns, m, n, k (further ones are ignored) and writes it with
total_cycles and stall_cycles as SCALE-Sim reports them, and cpu_seconds of the run, which holds all products of one
array and dataflow, divided by their number.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import sys
import tempfile
import time
from pathlib import Path

from scalesim.scale_sim import scalesim

# Large memories and a wide interface: the counts wanted are those without stalls.
SETTINGS = """[general]
run_name = products
[architecture_presets]
ArrayHeight: {rows}
ArrayWidth: {columns}
IfmapSramSzkB: 512
FilterSramSzkB: 512
OfmapSramSzkB: 512
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Bandwidth: 64
Dataflow: {dataflow}
MemoryBanks: 1
ReadRequestBuffer: 32
WriteRequestBuffer: 32
[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40
[run_presets]
InterfaceBandwidth: USER
UseRamulatorTrace: False
"""
COLUMNS = ("dataflow", "array_rows", "array_columns", "m", "n", "k")


def measured(machine: tuple[str, ...], products: list[tuple[str, ...]], folder: Path) -> list[tuple[str, ...]]:
    """Rows of one array and dataflow, with total cycles, stall cycles and CPU seconds."""
    dataflow, rows, columns = machine
    (folder / "array.cfg").write_text(SETTINGS.format(dataflow=dataflow, rows=rows, columns=columns))
    lines = [f"L{number},{','.join(product)}," for number, product in enumerate(products)]
    (folder / "products.csv").write_text("\n".join(["Layer,M,N,K,", *lines]) + "\n")
    layouts = [f"L{number}," + "1," * 20 for number in range(len(products))]
    (folder / "layouts.csv").write_text("\n".join(["Layer," + "factor," * 20, *layouts]) + "\n")
    simulator = scalesim(
        save_disk_space=True,
        verbose=False,
        config=str(folder / "array.cfg"),
        topology=str(folder / "products.csv"),
        layout=str(folder / "layouts.csv"),
        input_type_gemm=True,
    )
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        simulator.run_scale(top_path=str(folder / "out"))
    seconds = (time.process_time() - start) / len(products)
    (report,) = folder.rglob("COMPUTE_REPORT.csv")
    found = list(csv.reader(report.read_text().splitlines()))[1:]
    return [
        (*machine, *product, str(int(float(row[2]))), str(int(float(row[3]))), f"{seconds:.6f}")
        for product, row in zip(products, found, strict=True)
    ]


def main() -> None:
    """Measure every row of the CSV named on the command line."""
    with open(sys.argv[1], encoding="utf-8") as stream:
        wanted = [tuple(row[name] for name in COLUMNS) for row in csv.DictReader(stream)]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    rows = []
    for machine, group in itertools.groupby(wanted, key=lambda row: row[:3]):
        with tempfile.TemporaryDirectory() as folder:
            rows += measured(machine, [row[3:] for row in group], Path(folder))
    writer.writerow((*COLUMNS, "total_cycles", "stall_cycles", "cpu_seconds"))
    writer.writerows(rows)


if __name__ == "__main__":
    main()
