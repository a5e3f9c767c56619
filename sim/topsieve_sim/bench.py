"""Simulator speed on the published GPT-2 traces, side by side with the clock-by-clock reference in one run.

`python -m topsieve_sim.bench` prints simulated accelerator cycles per CPU-second. A lone rate says little about a
machine; the ratios to the reference, taken in the same run on the same processor, do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.engine import AttentionWork, prepare, simulate
from topsieve_sim.engine.attention import NO_SELECTION, Assumptions, decide, timing_group
from topsieve_sim.engine.program import Program
from topsieve_sim.stepped.attention import SteppedAttention
from topsieve_sim.timing.attention import attention_times
from topsieve_sim.trace import WORKLOADS, load_workload

REPEATS = 5
# The heads of the reference's slice; it clocks every cycle in Python.
SLICE_HEADS = 12


@dataclass(frozen=True)
class Rate:
    """`cycles` of the accelerator in `cpu_seconds` of this processor."""

    name: str
    cycles: int
    cpu_seconds: float

    @property
    def cycles_per_second(self) -> float:
        """Simulated cycles per CPU-second."""
        return self.cycles / self.cpu_seconds


def engine_rate(program: Program, config: AcceleratorConfig, name: str) -> Rate:
    """The engine from the prepared trace to the finished report; the fastest of a few runs after a warm-up."""
    cycles = simulate(program, config).cycles
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        simulate(program, config)
        seconds.append(time.process_time() - start)
    return Rate(name, cycles, min(seconds))


def reference_rate(program: Program, config: AcceleratorConfig) -> Rate:
    """The stepped reference on the first attention descriptor, cut to `SLICE_HEADS` heads that keep all values.

    Raises
    ------
    RuntimeError
        reference and recurrences disagree on the slice's cycles.
    """
    first = next(unit for unit in program.work if isinstance(unit, AttentionWork))
    piece = AttentionWork(first.groups[:SLICE_HEADS])
    group = timing_group(piece, decide(piece, program.trace, config, {}, Assumptions()), NO_SELECTION, config)
    stepped = SteppedAttention(config, group)
    start = time.process_time()
    stepped.run([], [])
    seconds = time.process_time() - start
    fast = attention_times(config, [group]).total_cycles
    if fast != stepped.total_cycles:
        raise RuntimeError(f"the reference takes {stepped.total_cycles} cycles, the recurrences {fast}")
    return Rate("stepped reference", stepped.total_cycles, seconds)


def main() -> None:
    """Print the table."""
    config = load_config("spatten")
    programs = {}
    for name in WORKLOADS:
        trace = load_workload(name)
        start = time.process_time()
        programs[name] = prepare(trace)
        print(f"{name}: {len(trace.ops)} operations prepared in {time.process_time() - start:.3f} CPU-s")
    rates = [engine_rate(program, config, name) for name, program in programs.items()]
    dense = next(program for name, program in programs.items() if name.endswith("dense"))
    reference = reference_rate(dense, config)
    print(f"\n{'on ' + config.name:32} {'cycles':>10} {'CPU-s':>8} {'Mcycles/CPU-s':>14} {'x reference':>12}")
    for rate in (*rates, reference):
        ratio = rate.cycles_per_second / reference.cycles_per_second
        print(
            f"{rate.name:32} {rate.cycles:10d} {rate.cpu_seconds:8.3f} {rate.cycles_per_second / 1e6:14.3f} {ratio:12.1f}"
        )
    print(
        f"\nthe reference ran {SLICE_HEADS} heads of the first dense layer, to the same cycle as the engine's recurrences"
    )


if __name__ == "__main__":
    main()
