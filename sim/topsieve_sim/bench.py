"""Simulator speed on the published GPT-2 traces, side by side with the clock-by-clock reference in one run.

`python -m topsieve_sim.bench` prints simulated accelerator cycles per CPU-second. A lone rate says little about a
machine; the ratios to the reference, taken in the same run on the same processor, do.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass

from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.engine import AttentionWork, prepare, simulate
from topsieve_sim.engine.attention import NO_SELECTION, Assumptions, decide, timing_group
from topsieve_sim.engine.program import Program
from topsieve_sim.stepped.attention import SteppedAttention
from topsieve_sim.timing.attention import attention_times
from topsieve_sim.trace import WORKLOADS, Trace, load_workload
from topsieve_sim.validation.workloads import BERT_BASE, bert_trace

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


def closed_loop_rates() -> list[Rate]:
    """The engine with HBM2 behind it: a BERT-base layer of 384 tokens, the encoder, and the pruned GPT-2 trace.

    Equal descriptors are timed once, so the encoder's twelve equal layers cost what one does.
    """
    config = load_config("spatten", ["memory.model=dram"])
    encoder = bert_trace(BERT_BASE, 384)
    layer = Trace(
        tuple(op for op in encoder.ops if op.layer == 0),
        model=encoder.model,
        method="dense",
        layers=1,
        heads=encoder.heads,
    )
    pruned = next(name for name in WORKLOADS if name.endswith("pruned"))
    programs = {
        "bert-base-384 layer": prepare(layer),
        "bert-base-384": prepare(encoder),
        pruned: prepare(load_workload(pruned)),
    }
    return [engine_rate(program, config, name) for name, program in programs.items()]


def main() -> None:
    """Print the tables."""
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
    print(f"\n{'in closed loop with HBM2':32} {'cycles':>10} {'CPU-s':>8} {'Mcycles/CPU-s':>14} {'x reference':>12}")
    for rate in closed_loop_rates():
        ratio = rate.cycles_per_second / reference.cycles_per_second
        print(
            f"{rate.name:32} {rate.cycles:10d} {rate.cpu_seconds:8.3f} {rate.cycles_per_second / 1e6:14.3f} {ratio:12.1f}"
        )
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak memory of this process: {peak_mb:.0f} MB")


if __name__ == "__main__":
    main()
