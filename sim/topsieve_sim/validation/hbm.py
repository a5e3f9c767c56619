"""Rows on the energy of HBM2: activations and bits apart, beside the average a bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.dram import load_dram_config, simulate_requests, split_into_accesses
from topsieve_sim.energy import action_energies_pj, hbm_energy_pj
from topsieve_sim.validation.checks import Check, Section
from topsieve_sim.validation.workbench import Workbench

PRESET = "hbm2-pseudo-channel"
ACCESSES = 1 << 15
# A token's key of 64 elements in 8 bits.
ROW_BYTES = 64

Rows = Callable[[np.random.Generator], NDArray[np.int64]]


def gathered(keep: float) -> Rows:
    """Addresses of the rows of one head's tokens that are kept with probability `keep`, in order."""

    def rows(generator: np.random.Generator) -> NDArray[np.int64]:
        tokens = int(ACCESSES / keep)
        return np.flatnonzero(generator.random(tokens) < keep) * ROW_BYTES

    return rows


def scattered(generator: np.random.Generator) -> NDArray[np.int64]:
    """Rows at random places of a gibibyte."""
    return generator.integers(0, (1 << 30) // ROW_BYTES, ACCESSES) * ROW_BYTES


def picojoules_per_bit(bench: Workbench, rows: Rows) -> float:
    """Energy a bit of one read of `rows` through the command-level model, activations counted."""
    config = load_dram_config(PRESET)
    addresses, _ = split_into_accesses(config, rows(np.random.default_rng(0)), bytes_each=ROW_BYTES)
    counters = simulate_requests(config, addresses).counters
    bits = 8 * config.organization.access_bytes * counters.read_commands
    return hbm_energy_pj(bits, counters.activates, action_energies_pj(bench.config)) / bits


def _row(name: str, rows: Rows, reason: str = "") -> Check:
    return Check(
        f"HBM2, {name}",
        "pJ/bit",
        3.92,
        lambda bench: picojoules_per_bit(bench, rows),
        "O'Connor et al., MICRO 2017, average of GPU workloads (specification `accelerator`, 7)",
        reason=reason,
    )


SECTIONS = (
    Section(
        "HBM2: energy a bit",
        "909 pJ for each row activation and 3.48 pJ for each bit, with the activations that the command-level model of "
        f"`{PRESET}` counts for {ACCESSES} reads of {ROW_BYTES} bytes, beside the published average of 3.92 pJ a bit, which the "
        "energy of the accelerator's ideal memory uses.",
        (
            _row("sequential stream", gathered(1.0)),
            _row("gather that keeps half of the tokens", gathered(0.5)),
            _row("gather that keeps a tenth", gathered(0.1), "ten times as many rows are opened for the same bits"),
            _row("random rows", scattered, "an activation for nearly every row of 64 bytes"),
        ),
    ),
)
