"""Cycle-exact DRAM: HBM2, DDR4 and newer standards under two published controller policies.

`simulate_requests` runs a whole trace, `DramSimulator` the memory in closed loop, `load_dram_config` reads a preset or a
YAML file. See `docs/dram.md`.
"""

from topsieve_sim.dram.address import Location, decode, encode, split_into_accesses
from topsieve_sim.dram.config import (
    Controller,
    Currents,
    DramConfig,
    Organization,
    PagePolicy,
    PerAccessEnergy,
    Policy,
    Provenance,
    Timing,
)
from topsieve_sim.dram.energy import CurrentEnergy, DramEnergy
from topsieve_sim.dram.load import dram_preset_names, load_dram_config
from topsieve_sim.dram.result import CommandStream, DramCounters, DramResult
from topsieve_sim.dram.simulate import simulate_requests
from topsieve_sim.dram.simulator import DramSimulator

__all__ = [
    "CommandStream",
    "Controller",
    "CurrentEnergy",
    "Currents",
    "DramConfig",
    "DramCounters",
    "DramEnergy",
    "DramResult",
    "DramSimulator",
    "Location",
    "Organization",
    "PagePolicy",
    "PerAccessEnergy",
    "Policy",
    "Provenance",
    "Timing",
    "decode",
    "dram_preset_names",
    "encode",
    "load_dram_config",
    "simulate_requests",
    "split_into_accesses",
]
