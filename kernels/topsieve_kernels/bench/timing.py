"""Times on a GPU: graph replays between events where a graph can be captured, cold second-level cache, the median."""

import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch

from topsieve_kernels.bench.power import ReadJoules, board_power_w, driver_joules

REPEATS = 25
WARM_UPS = 5
# Calls between two looks at the energy counter take about this long.
LOOK_US = 5000


@dataclass(frozen=True)
class Timing:
    """Microseconds of one call: median, and the fastest and slowest of the repeats; `method` is 'graph' or 'events'.

    `board_power_w` is of the whole board while the call repeats without a pause; None where the board does not tell.
    """

    median_us: float
    fastest_us: float
    slowest_us: float
    repeats: int
    method: str
    board_power_w: float | None = None

    @property
    def board_energy_uj(self) -> float | None:
        """Microjoules of the board for one call: its power times the median."""
        return None if self.board_power_w is None else self.board_power_w * self.median_us


Timer = Callable[[Callable[[], object]], Timing]


def summary(times_us: list[float], method: str) -> Timing:
    """The timing of a list of repeats."""
    return Timing(statistics.median(times_us), min(times_us), max(times_us), len(times_us), method)


@cache
def _joules() -> ReadJoules | None:
    """The energy counter of the current CUDA device."""
    return driver_joules(f"GPU-{torch.cuda.get_device_properties().uuid}")


def gpu_timer(call: Callable[[], object]) -> Timing:
    """Time `call` on the current CUDA device; between repeats a buffer of twice the second-level cache is written.

    Afterwards it repeats without that buffer, to see what the board draws.
    """
    for _ in range(WARM_UPS):
        call()
    torch.cuda.synchronize()
    replay, method = call, "events"
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        replay, method = graph.replay, "graph"
    except RuntimeError:
        # A call that synchronises cannot be captured; it is timed with its launches, and the result says so.
        torch.cuda.synchronize()
    flush = torch.empty(2 * torch.cuda.get_device_properties().L2_cache_size, dtype=torch.uint8, device="cuda")
    times = []
    for turn in range(REPEATS + 2):
        flush.fill_(turn % 251)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        replay()
        end.record()
        torch.cuda.synchronize()
        times.append(1e3 * begin.elapsed_time(end))
    timing = summary(times[2:], method)
    joules = _joules()
    if joules is None:
        return timing
    together = max(1, round(LOOK_US / timing.median_us))

    def repeat() -> None:
        for _ in range(together):
            replay()
        torch.cuda.synchronize()

    return replace(timing, board_power_w=board_power_w(repeat, joules))


def clock_state() -> dict[str, str]:
    """Clocks, temperature, power and throttle reasons as the driver's tool reports them; {} where it is missing."""
    fields = "clocks.sm,clocks.mem,temperature.gpu,power.draw,clocks_event_reasons.active"
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    if done.returncode:
        return {}
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")]
    return dict(zip(fields.split(","), values, strict=True))
