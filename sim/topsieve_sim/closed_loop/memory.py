"""The DRAM behind a machine, and the ports before it."""

from __future__ import annotations

import math
from functools import lru_cache

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.dram import DramConfig, load_dram_config
from topsieve_sim.dram.ports import Ports
from topsieve_sim.errors import InputError


@lru_cache(maxsize=16)
def machine_memory(config: AcceleratorConfig) -> DramConfig:
    """The preset or file of `memory.dram.preset`, with `memory.channels` channels.

    Raises
    ------
    InputError
        no such preset or file, or a number of channels that it cannot have.
    """
    preset = config.memory.dram.preset
    try:
        return load_dram_config(preset, [f"organization.channels={config.memory.channels}"])
    except InputError as error:
        # Said in the words of the accelerator's configuration, which is where the user can change it.
        raise InputError(
            error.problem.replace("organization.channels", "memory.channels"),
            source=f"{config.name}: memory.dram.preset {preset}",
            field=error.field,
            value=error.value,
            allowed=error.allowed,
        ) from error


def memory_ports(config: AcceleratorConfig) -> Ports:
    """Ports and clock ratio; the core's and the memory's clocks are told apart to a picosecond."""
    memory = config.memory.dram
    core_ps, dram_ps = round(1e6 / config.clock_mhz), round(machine_memory(config).clock_ns * 1000)
    divisor = math.gcd(core_ps, dram_ps)
    return Ports(memory.ports, memory.port_outstanding, memory.crossbar_cycles, core_ps // divisor, dram_ps // divisor)
