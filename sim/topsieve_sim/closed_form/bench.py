"""Design points a minute in closed form, beside the cycle model on the same trace and machines in one run.

`python -m topsieve_sim.closed_form.bench [TRACE ...]`; default: the published workloads and BERT-Base over 384 tokens. Two
families of machines: alike in all that the data decides on, and a Latin hypercube that varies number formats and the top-k
engine too.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.closed_form import ClosedForm
from topsieve_sim.engine import prepare, simulate
from topsieve_sim.engine.program import Program
from topsieve_sim.trace import WORKLOADS, load_trace, load_workload
from topsieve_sim.validation.workloads import BERT_BASE, bert_trace

# Of the machines that are estimated, about how many are simulated too.
SIMULATED = 16


@dataclass(frozen=True)
class Rate:
    """Both models on one trace and one family of machines.

    points_per_minute, cycle_points_per_minute : of one processor's time. median_error, largest_error : relative, of cycles.
    """

    name: str
    family: str
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


def various_machines(points: int = 1000, seed: int = 0) -> list[AcceleratorConfig]:
    """A Latin hypercube of machines around the published one: four bit plans, three widths of a probability, three of a
    value, three selectors at four widths, and arrays, lanes and memory."""
    generator = np.random.default_rng(seed)
    axes: dict[str, tuple[Any, ...]] = {
        "plan": ((8, 4), (6, 4), (6, 2), (4, 4)),
        "probability_bits": (8, 10, 12),
        "value_bits": (8, 10, 12),
        "selector": ("quick", "radix", "bitonic"),
        "parallelism": (4, 8, 16, 32),
        "product": (128, 256, 512, 1024),
        "weighted": (128, 256, 512, 1024),
        "lanes": (2, 4, 8, 16),
        "channels": (1, 2, 4, 8, 16),
        "latency": tuple(range(20, 200)),
    }
    drawn = {
        name: [values[stratum * len(values) // points] for stratum in generator.permutation(points).tolist()]
        for name, values in axes.items()
    }
    base = load_config("spatten").model_dump()
    found = []
    for place in range(points):
        at = {name: values[place] for name, values in drawn.items()}
        formats = {"probability_bits": at["probability_bits"], "value_bits": at["value_bits"]}
        formats |= dict(zip(("key_msb_bits", "key_lsb_bits"), at["plan"], strict=True))
        varied = {
            "dot_product": {"multipliers": at["product"]},
            "weighted_sum": {"multipliers": at["weighted"]},
            "softmax": {"lanes": at["lanes"]},
            "topk": base["topk"] | {"selector": at["selector"], "parallelism": at["parallelism"]},
            "memory": base["memory"] | {"channels": at["channels"], "latency_cycles": at["latency"]},
            "formats": base["formats"] | formats,
        }
        found.append(AcceleratorConfig.model_validate(base | varied))
    return found


# By what is printed.
FAMILIES: dict[str, Callable[[], list[AcceleratorConfig]]] = {"speeds": machines, "formats, engines": various_machines}


def rate(program: Program, name: str, family: str) -> Rate:
    """Rates and errors on one trace, from the prepared trace to cycles, energy, bytes and area."""
    configs = FAMILIES[family]()
    every = max(1, len(configs) // SIMULATED)
    sample = configs[::every]
    # Compiled before the clock starts.
    ClosedForm(program).estimate(sample[:1])
    simulate(program, sample[0])
    start = time.process_time()
    cycles = ClosedForm(program).estimate(configs).cycles[::every]
    seconds = time.process_time() - start
    start = time.process_time()
    exact = np.array([simulate(program, config).cycles for config in sample])
    simulated_seconds = time.process_time() - start
    error = np.abs(cycles / exact - 1)
    return Rate(
        name,
        family,
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
        f"{'points a minute of one core':28} {'machines differ in':17} {'closed form':>12} {'cycle':>8} {'ratio':>7} {'median error':>13} {'largest':>8}"
    )
    for (name, program), family in itertools.product(programs.items(), FAMILIES):
        found = rate(program, name, family)
        ratio = found.points_per_minute / found.cycle_points_per_minute
        print(
            f"{name[-28:]:28} {family:17} {found.points_per_minute:12,.0f} {found.cycle_points_per_minute:8,.0f} {ratio:7.1f} "
            f"{found.median_error:13.3%} {found.largest_error:8.3%}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
