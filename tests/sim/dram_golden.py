"""Measured DRAM runs: which configuration of ours answers to which measured one, and its traces."""

from __future__ import annotations

import csv
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topsieve_sim.dram import DramConfig, DramResult, load_dram_config, simulate_requests

FOLDER = Path(__file__).parents[1] / "data" / "dram_golden"

SMALL_QUEUES = ("controller.bank_queue=4", "controller.read_queue=8", "controller.write_buffer=8")
DDR4_SECOND = ("controller.policy=ramulator", "timing.tRTRS=2")

DRAMSIM3: dict[str, tuple[str, tuple[str, ...]]] = {
    "d3_hbm2": ("hbm2", ()),
    "d3_hbm2i": ("hbm2-interleaved", ()),
    "d3_hbm2pc": ("hbm2-pseudo-channel", ()),
    "d3_ddr4_2400": ("ddr4-2400", ()),
    "d3_ddr4_3200": ("ddr4-3200", ()),
    "d3_hbm2_smallq": ("hbm2", SMALL_QUEUES),
    "d3_hbm2_single": ("hbm2", ("controller.dual_command=false",)),
    "d3_hbm2_close": ("hbm2", ("controller.page=closed",)),
    "d3_ddr4_2400_close": ("ddr4-2400", ("controller.page=closed",)),
}
RAMULATOR: dict[str, tuple[str, tuple[str, ...]]] = {
    "r2_hbm2pc": ("hbm2-shared-buffer", ()),
    "r2_hbm2pc_q64": ("hbm2-shared-buffer", ("controller.read_queue=64",)),
    "r2_ddr4_2400": ("ddr4-2400", (*DDR4_SECOND, "clock_ns=0.833", "timing.tRFC=433", "timing.tREFI=9364")),
    "r2_ddr4_3200": ("ddr4-3200", (*DDR4_SECOND, "clock_ns=0.625", "timing.tRFC=576")),
}


@dataclass(frozen=True)
class Trace:
    """A request trace: byte addresses, write flags, first cycles of injection, injection mode."""

    addresses: np.ndarray
    is_write: np.ndarray
    arrival_cycles: np.ndarray
    mode: Any

    def run(self, config: DramConfig, requests: int | None = None, *, record_commands: bool = False) -> DramResult:
        """Simulate the first `requests` requests."""
        cut = slice(requests)
        return simulate_requests(
            config,
            self.addresses[cut],
            self.is_write[cut],
            self.arrival_cycles[cut],
            mode=self.mode,
            record_commands=record_commands,
        )


def config_of(measured: str) -> DramConfig:
    """Our configuration that answers to a measured one."""
    preset, overrides = (DRAMSIM3 | RAMULATOR)[measured]
    return load_dram_config(preset, overrides)


@functools.cache
def parameters() -> dict[str, Any]:
    """`configs.json`."""
    return json.loads((FOLDER / "configs.json").read_text(encoding="utf-8"))


@functools.cache
def outputs(measured: str) -> dict[str, np.ndarray]:
    """Measured cycles of a configuration."""
    with np.load(FOLDER / "outputs" / f"{measured}.npz") as archive:
        return dict(archive)


def traces_of(measured: str) -> list[str]:
    """Names of the traces a configuration was measured on."""
    return sorted(key.removesuffix("__accept") for key in outputs(measured) if key.endswith("__accept"))


@functools.cache
def summary() -> dict[tuple[str, str], dict[str, str]]:
    """Rows of `summary.csv` by configuration and trace."""
    with (FOLDER / "summary.csv").open(encoding="utf-8", newline="") as stream:
        return {(row["config"], row["trace"]): row for row in csv.DictReader(stream)}


@functools.cache
def command_streams() -> dict[str, np.ndarray]:
    """Arrays of `cmd_traces.npz`."""
    with np.load(FOLDER / "cmd_traces" / "cmd_traces.npz") as archive:
        return dict(archive)


@functools.cache
def _archive(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / "traces" / f"{name}.npz") as archive:
        return dict(archive)


@functools.cache
def _index() -> dict[str, Any]:
    return json.loads((FOLDER / "traces_index.json").read_text(encoding="utf-8"))


def trace_of(measured: str, name: str) -> Trace:
    """A trace as the configuration saw it: 64 B requests come as two of 32 B where a request is 32 B."""
    archive = _archive("micro" if name.startswith("micro_") else "general")
    unit = _index()[name]["addr_unit_bytes"]
    addresses = archive[f"{name}__blk"].astype(np.int64) * unit
    is_write = archive[f"{name}__is_write"].astype(bool)
    arrival = archive[f"{name}__arrive"].astype(np.int64)
    if unit == 64 and config_of(measured).organization.access_bytes == 32:
        addresses = np.stack([addresses, addresses + 32], axis=1).ravel()
        is_write, arrival = np.repeat(is_write, 2), np.repeat(arrival, 2)
    return Trace(addresses, is_write, arrival, _index()[name]["mode"])
