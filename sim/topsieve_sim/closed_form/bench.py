"""Design points a minute in closed form, beside the cycle model on the same trace and machines in one run.

`python -m topsieve_sim.closed_form.bench [TRACE ...]`; default: the published workloads and BERT-Base over 384 tokens. The
machines differ in arrays, lanes, memory and buffering: what a sweep over a machine varies once a trace is chosen.
"""

from __future__ import annotations

import itertools
import sys
import time
from dataclasses import dataclass

import numpy as np

from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.closed_form import ClosedForm
from topsieve_sim.engine import prepare, simulate
from topsieve_sim.engine.program import Program
from topsieve_sim.trace import WORKLOADS, load_trace, load_workload
from topsieve_sim.validation.workloads import BERT_BASE, bert_trace

# Of the machines that are estimated, every how manyth is simulated too.
SIMULATED_EVERY = 16


@dataclass(frozen=True)
class Rate:
    """Both models on one trace.

    points_per_minute, cycle_points_per_minute : of one processor's time. median_error, largest_error : relative, of cycles.
    """

    name: str
    points_per_minute: float
    cycle_points_per_minute: float
    median_error: float
    largest_error: float


def machines() -> list[AcceleratorConfig]:
    """256 machines around the published one."""
    base = load_config("spatten").model_dump()
    found = []
    for product, weighted, lanes, channels, latency, double in itertools.product(
        (128, 256, 512, 1024), (128, 256, 512, 1024), (8, 16), (4, 16), (50, 150), (True, False)
    ):
        found.append(
            AcceleratorConfig.model_validate(
                base
                | {
                    "dot_product": {"multipliers": product},
                    "weighted_sum": {"multipliers": weighted},
                    "softmax": {"lanes": lanes},
                    "memory": base["memory"] | {"channels": channels, "latency_cycles": latency},
                    "double_buffer": double,
                }
            )
        )
    return found


def rate(program: Program, name: str) -> Rate:
    """Rates and errors on one trace, from the prepared trace to cycles, energy, bytes and area."""
    configs = machines()
    sample = configs[::SIMULATED_EVERY]
    # Compiled before the clock starts.
    ClosedForm(program).estimate(sample[:1])
    simulate(program, sample[0])
    start = time.process_time()
    cycles = ClosedForm(program).estimate(configs).cycles[::SIMULATED_EVERY]
    seconds = time.process_time() - start
    start = time.process_time()
    exact = np.array([simulate(program, config).cycles for config in sample])
    simulated_seconds = time.process_time() - start
    error = np.abs(cycles / exact - 1)
    return Rate(
        name,
        60 * len(configs) / seconds,
        60 * len(sample) / simulated_seconds,
        float(np.median(error)),
        float(error.max()),
    )


def main(sources: list[str]) -> None:
    """Print the table."""
    programs = {source: prepare(load_trace(source)) for source in sources}
    if not sources:
        programs = {name: prepare(load_workload(name)) for name in WORKLOADS}
        programs["bert-base-384"] = prepare(bert_trace(BERT_BASE, 384))
    print(
        f"{'points a minute of one core':40} {'closed form':>12} {'cycle':>8} {'ratio':>7} {'median error':>13} {'largest':>8}"
    )
    for name, program in programs.items():
        found = rate(program, name)
        ratio = found.points_per_minute / found.cycle_points_per_minute
        print(
            f"{name:40} {found.points_per_minute:12,.0f} {found.cycle_points_per_minute:8,.0f} {ratio:7.1f} "
            f"{found.median_error:13.3%} {found.largest_error:8.3%}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
