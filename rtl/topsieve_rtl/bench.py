"""The fast top-k model against a Verilator co-simulation of the same engine on the same vectors, in one run.

`python -m topsieve_rtl.bench` prints engine cycles per CPU-second of both and their ratio. Both start from vectors in
memory; building the simulation, starting the simulator and compiling the model are left out.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import numpy as np

from topsieve_rtl.cosim import Case, Engine, RunLog, run
from topsieve_rtl.units import find_unit
from topsieve_rtl.units.topk import engine_inputs, engine_times
from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.timing.topk import TopKTimes

SHORT, LONG = 20, 220


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU-seconds of `work` in this process and in those it waited for."""

    def spent() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    start = spent()
    work()
    return spent() - start


def measure(config: AcceleratorConfig, cases: int = LONG) -> tuple[int, float, float]:
    """Cycles of the engine on `cases` drawn cases, and CPU-seconds of model and co-simulation on them.

    The co-simulation runs a short and a long list of cases; the difference has no build and no start in it.

    Raises
    ------
    MissingToolError
        Verilator or cocotb is not installed.
    RuntimeError
        the two disagree on the cycles.
    """
    unit = find_unit("topk")
    design = unit.design(config)
    drawn = [unit.draw(config, np.random.default_rng([1, number])) for number in range(SHORT + cases)]
    short, long = drawn[:SHORT], drawn
    logs: list[RunLog] = []

    def simulate(some: list[Case]) -> None:
        logs[:] = run(design, some, Engine.VERILATOR)

    simulate(short)  # builds
    cosimulated = -cpu_seconds(lambda: simulate(short)) + cpu_seconds(lambda: simulate(long))
    cycles = sum(log.cycles for log in logs[SHORT:])
    inputs = [engine_inputs(config, case) for case in long]
    for some in inputs[:SHORT]:  # compiles
        engine_times(config, some)
    predicted: list[TopKTimes] = []
    modelled = cpu_seconds(lambda: predicted.extend(engine_times(config, some) for some in inputs[SHORT:]))
    for log, times in zip(logs[SHORT:], predicted, strict=True):
        if log.channels["i"].cycles != times.accepted.tolist() or log.channels["o"].cycles != times.left.tolist():
            raise RuntimeError("the model and the co-simulation disagree")
    return cycles, modelled, cosimulated


def main() -> None:
    """Print the table."""
    print(f"{'top-k engine':24} {'cycles':>9} {'model':>12} {'Verilator':>12} {'ratio':>8}   (cycles per CPU-second)")
    for overrides in (("topk.selector=quick",), ("topk.selector=radix",)):
        config = load_config("ecp5", overrides)
        cycles, modelled, cosimulated = measure(config)
        name = f"{config.name}, {config.topk.selector.value}"
        print(
            f"{name:24} {cycles:9d} {cycles / modelled:12,.0f} {cycles / cosimulated:12,.0f} {cosimulated / modelled:8.0f}"
        )


if __name__ == "__main__":
    main()
