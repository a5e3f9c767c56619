"""Energy of a run, two independent models side by side.

Currents: the data-sheet formula (activate pair above standby, bursts above active standby, refresh above active standby,
standby per rank and cycle), volts times milliamperes times nanoseconds = picojoules. It holds no input/output energy.

Per access: E = activate_pj * activates + bit_pj * bits, where a bit includes on-die movement and input/output
(O'Connor et al., MICRO 2017, for HBM2: 909 pJ per activate, 3.48 pJ per bit; specification `accelerator`, section 7).
It holds no refresh and no standby energy, hence it is not comparable with the first on sparse traffic.
"""

from __future__ import annotations

from dataclasses import dataclass

from topsieve_sim.dram.config import DramConfig


@dataclass(frozen=True)
class CurrentEnergy:
    """Energy by cause, in picojoules."""

    activate_pj: float
    read_pj: float
    write_pj: float
    refresh_pj: float
    active_standby_pj: float
    precharge_standby_pj: float

    @property
    def total_pj(self) -> float:
        """Sum of all causes."""
        return (
            self.activate_pj
            + self.read_pj
            + self.write_pj
            + self.refresh_pj
            + self.active_standby_pj
            + self.precharge_standby_pj
        )


@dataclass(frozen=True)
class DramEnergy:
    """Energy by each model the configuration has numbers for."""

    currents: CurrentEnergy | None
    per_access_pj: float | None


def dram_energy(
    config: DramConfig,
    *,
    activates: int,
    read_commands: int,
    write_commands: int,
    refreshes: int,
    active_cycles: int,
    idle_cycles: int,
) -> DramEnergy:
    """Energy of the counted events; `active_cycles` and `idle_cycles` are summed over all ranks of all channels."""
    per_access: float | None = None
    if config.per_access_energy is not None:
        bits = (read_commands + write_commands) * config.organization.access_bytes * 8
        model = config.per_access_energy
        per_access = model.activate_pj * activates + model.bit_pj * bits
    return DramEnergy(
        currents=_current_energy(
            config, activates, read_commands, write_commands, refreshes, active_cycles, idle_cycles
        ),
        per_access_pj=per_access,
    )


def _current_energy(
    config: DramConfig, activates: int, reads: int, writes: int, refreshes: int, active_cycles: int, idle_cycles: int
) -> CurrentEnergy | None:
    currents, timing = config.currents, config.timing
    if currents is None:
        return None
    # Picojoules of one milliampere in one rank for one cycle.
    unit = currents.VDD * config.organization.devices_per_rank * config.clock_ns
    burst = config.organization.burst_cycles
    activate = currents.IDD0 * timing.tRC - currents.IDD3N * timing.tRAS - currents.IDD2N * timing.tRP
    return CurrentEnergy(
        activate_pj=unit * activate * activates,
        read_pj=unit * (currents.IDD4R - currents.IDD3N) * burst * reads,
        write_pj=unit * (currents.IDD4W - currents.IDD3N) * burst * writes,
        refresh_pj=unit * (currents.IDD5AB - currents.IDD3N) * timing.tRFC * refreshes,
        active_standby_pj=unit * currents.IDD3N * active_cycles,
        precharge_standby_pj=unit * currents.IDD2N * idle_cycles,
    )
