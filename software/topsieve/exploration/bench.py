"""What workers cost a sweep: processor time of all processes beside that of the points themselves, and wall-clock time.

`python -m topsieve.exploration.bench [POINTS]`, part of `make bench`; a thousand machines in the cycle model and in closed
form, by one worker and by two. Wall-clock shares say something on as many idle cores as there are workers only.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from topsieve.exploration.executors import Executor, ExecutorKind, Processes
from topsieve.exploration.spec import SweepSpec
from topsieve.exploration.store import Store
from topsieve.exploration.sweep import Workers, run_sweep
from topsieve_sim.fields import validated
from topsieve_sim.trace import load_workload, save_trace
from topsieve_sim.validation.workloads import BERT_BASE, bert_trace

POINTS = 1000
DENSE = "gpt2-small-wikitext2-dense"
WORKERS = (1, 2)
# What is asked of two workers on two idle cores.
EFFICIENCY_AIM = 0.9


@dataclass(frozen=True)
class Cost:
    """A sweep's seconds.

    useful : processor time in points. processor : of all processes, start of the workers included. slots : wall-clock time
    of all workers, from the specification to the last stored point.
    """

    useful: float
    processor: float
    slots: float

    @property
    def processor_share(self) -> float:
        """Of all processor time, what the points took."""
        return self.useful / self.processor

    @property
    def efficiency(self) -> float:
        """Of the workers' wall-clock time, what the points took."""
        return self.useful / self.slots


@dataclass(frozen=True)
class _Timed(Workers):
    """Process workers that leave behind in `seconds` what they and their server took."""

    seconds: tuple[list[float], ...] = ([],)

    def open(self) -> Executor:
        return _TimedProcesses(self.work, self.count, self.seconds[0])


class _TimedProcesses(Processes):
    def __init__(self, work: object, workers: int, seconds: list[float]) -> None:
        super().__init__(work, workers)  # type: ignore[arg-type]
        self._seconds = seconds

    def close(self) -> None:
        taken = [_process(number) for number in self.process_ids]
        server = {parent for parent, _ in taken}
        self._seconds += [seconds for _, seconds in taken] + [_process(number)[1] for number in server]
        super().close()


def _process(number: int) -> tuple[int, float]:
    """Parent and processor seconds of a process that runs, as Linux tells them."""
    # Behind the name, which may hold spaces: state, parent, ...; fields 14 and 15 are user and system time in ticks.
    fields = Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def specification(trace: Path, mode: str, points: int) -> SweepSpec:
    """A hypercube over arrays, lanes, top-k engine and memory of the published machine."""
    data = {
        "name": "bench",
        "mode": mode,
        "accelerator": "spatten",
        "sampling": "latin-hypercube",
        "points": points,
        "workload": {"traces": [str(trace)]},
        "fields": {
            "dot_product.multipliers": [128, 256, 512, 1024],
            "weighted_sum.multipliers": [128, 256, 512, 1024],
            "softmax.lanes": [4, 8, 16],
            "topk.selector": ["quick", "radix", "bitonic"],
            "topk.parallelism": [4, 8, 16, 32],
            "memory.channels": {"low": 1, "high": 16},
            "memory.latency_cycles": {"low": 20, "high": 200},
        },
    }
    return validated(SweepSpec, data, "bench")


def cost(trace: Path, mode: str, workers: int, points: int) -> Cost:
    """One sweep into an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        seconds: list[float] = []
        timed = _Timed(ExecutorKind.PROCESSES, workers, seconds=(seconds,))
        wall, processor = time.perf_counter(), time.process_time()
        sweep = run_sweep(specification(trace, mode, points), Store(folder), timed)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return Cost(sweep.cpu_seconds, processor + sum(seconds), workers * wall)


def main(arguments: Sequence[str]) -> None:
    """Print the table."""
    points = int(arguments[0]) if arguments else POINTS
    print(f"{points} points, seconds; {len(os.sched_getaffinity(0))} cores are there")
    print(
        f"{'trace':28} {'mode':12} {'workers':>7} {'points':>8} {'all':>8} {'share':>6} {'wall':>7} {'efficiency':>10}"
    )
    traces = {"bert-base-384": bert_trace(BERT_BASE, 384), DENSE: load_workload(DENSE)}
    cases = [("bert-base-384", "closed-form"), ("bert-base-384", "cycle"), (DENSE, "cycle")]
    with tempfile.TemporaryDirectory() as folder:
        for name, trace in traces.items():
            save_trace(trace, Path(folder) / f"{name}.npz")
        for (name, mode), workers in itertools.product(cases, WORKERS):
            # In a new process, or the server of the one before would be there.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                found = process.submit(cost, Path(folder) / f"{name}.npz", mode, workers, points).result()
            print(
                f"{name:28} {mode:12} {workers:7} {found.useful:8.2f} {found.processor:8.2f} {found.processor_share:6.1%} "
                f"{found.slots / workers:7.2f} {found.efficiency:10.1%}",
                flush=True,
            )
    print(f"asked of two workers on two idle cores, cycle model: an efficiency of {EFFICIENCY_AIM:.0%}")


if __name__ == "__main__":
    main(sys.argv[1:])
