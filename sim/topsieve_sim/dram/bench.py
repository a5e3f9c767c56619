"""Simulated requests per CPU second, per memory and traffic: `python -m topsieve_sim.dram.bench`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from topsieve_sim.dram.config import DramConfig
from topsieve_sim.dram.load import load_dram_config
from topsieve_sim.dram.requests import Int64
from topsieve_sim.dram.simulate import simulate_requests

DEFAULT_MEMORIES = ("hbm2", "hbm2-pseudo-channel", "hbm2-shared-buffer", "ddr4-2400")


@dataclass(frozen=True)
class Speed:
    """One measured combination."""

    memory: str
    traffic: str
    requests: int
    simulated_cycles: int
    cpu_seconds: float

    @property
    def requests_per_cpu_second(self) -> float:
        """Requests over CPU time, submission and collection of results included, compilation excluded."""
        return self.requests / self.cpu_seconds


def sequential(config: DramConfig, requests: int) -> Int64:
    """Consecutive accesses from address 0."""
    return np.arange(requests, dtype=np.int64) * config.organization.access_bytes


def random_reads(config: DramConfig, requests: int) -> Int64:
    """Uniform random accesses over 1 GiB (or the whole memory if it is smaller)."""
    span = min(1 << 30, config.organization.capacity_bytes) // config.organization.access_bytes
    return np.random.default_rng(1).integers(0, span, requests) * config.organization.access_bytes


def gather(config: DramConfig, requests: int, keep_ratio: float = 0.5) -> Int64:
    """Keys, then values, of the kept tokens of 1024, head after head of 12, new kept tokens for every layer; rows of 64 B."""
    tokens, heads, row_bytes = 1024, 12, 64
    size = min(config.organization.access_bytes, row_bytes)
    random = np.random.default_rng(2)
    layer_bytes = heads * 2 * tokens * row_bytes
    layers: list[Int64] = []
    while sum(layer.size for layer in layers) < requests:
        kept = np.flatnonzero(random.random(tokens) < keep_ratio) * row_bytes
        planes = np.arange(heads * 2)[:, None] * tokens * row_bytes
        start = len(layers) * layer_bytes + (planes + kept).reshape(-1, 1)
        layers.append((start + np.arange(0, row_bytes, size)).ravel())
    return np.concatenate(layers)[:requests]


TRAFFIC: dict[str, Callable[[DramConfig, int], Int64]] = {
    "sequential": sequential,
    "gather": gather,
    "random": random_reads,
}


def measure(memory: str, traffic: str, requests: int = 200_000, repeats: int = 3) -> Speed:
    """Best of `repeats` runs after one short run that compiles."""
    config = load_dram_config(memory)
    addresses = TRAFFIC[traffic](config, requests)
    simulate_requests(config, addresses[:64])
    best, cycles = float("inf"), 0
    for _ in range(repeats):
        started = time.process_time()
        cycles = simulate_requests(config, addresses).cycles
        best = min(best, time.process_time() - started)
    return Speed(memory, traffic, requests, cycles, best)


def main() -> None:
    """Print one line per memory and traffic."""
    parser = argparse.ArgumentParser(description="Simulated DRAM requests per CPU second.")
    parser.add_argument("memories", nargs="*", default=DEFAULT_MEMORIES, help="presets or YAML files")
    parser.add_argument("--requests", type=int, default=200_000)
    arguments = parser.parse_args()
    print(f"{'memory':24}{'traffic':12}{'requests/CPU-s':>16}{'cycles/CPU-s':>14}")
    for memory in arguments.memories:
        for traffic in TRAFFIC:
            speed = measure(memory, traffic, arguments.requests)
            print(
                f"{memory:24}{traffic:12}{speed.requests_per_cpu_second:16,.0f}"
                f"{speed.simulated_cycles / speed.cpu_seconds:14,.0f}"
            )


if __name__ == "__main__":
    main()
