"""What a simulation returns: cycles per request, counters, energy, and the command stream on demand."""

from __future__ import annotations

from dataclasses import dataclass

from topsieve_sim.dram.config import DramConfig
from topsieve_sim.dram.energy import DramEnergy
from topsieve_sim.dram.requests import Int32, Int64


@dataclass(frozen=True)
class DramCounters:
    """Events of all channels up to the last cycle of the run.

    `row_hits` counts column commands to a row that has served one since its activate, `row_misses` the others.
    `row_conflicts` counts the precharges that were chosen to make way for another row, also those that the command bus
    then had no room for. `active_cycles` counts rank-cycles with at least one open bank, `idle_cycles` the others.
    """

    read_commands: int
    write_commands: int
    activates: int
    precharges: int
    row_conflicts: int
    refreshes: int
    dual_commands: int
    row_hits: int
    forwarded_reads: int
    merged_reads: int
    absorbed_writes: int
    active_cycles: int
    escaped_livelocks: int
    row_misses: int
    idle_cycles: int


@dataclass(frozen=True)
class CommandStream:
    """Every command of every channel, by cycle and then channel. Fields that do not apply to a command hold -1."""

    cycle: Int64
    kind: Int32
    """0 read, 1 read with auto-precharge, 2 write, 3 write with auto-precharge, 4 activate, 5 precharge, 7 refresh."""
    channel: Int32
    pseudo_channel: Int32
    rank: Int32
    bank_group: Int32
    bank: Int32
    row: Int32
    column: Int32


@dataclass(frozen=True)
class DramResult:
    """One simulated trace. Cycles count the command clock; the run begins at 0."""

    config: DramConfig
    accept_cycles: Int64
    """int64 [n]: cycle in which each request entered the controller."""
    complete_cycles: Int64
    """int64 [n]: cycle in which a read's data has arrived or a write was acknowledged."""
    cycles: int
    """Last completion plus one: the length of the run."""
    counters: DramCounters
    energy: DramEnergy
    commands: CommandStream | None = None

    @property
    def latency_cycles(self) -> Int64:
        """int64 [n]: completion minus acceptance."""
        return self.complete_cycles - self.accept_cycles

    @property
    def duration_ns(self) -> float:
        """Length of the run in nanoseconds."""
        return self.cycles * self.config.clock_ns

    @property
    def bytes_per_second(self) -> float:
        """Requested bytes per second of simulated time."""
        if self.cycles == 0:
            return 0.0
        return self.accept_cycles.size * self.config.organization.access_bytes / (self.duration_ns * 1e-9)

    @property
    def utilization(self) -> float:
        """Requested bytes over what the pins could have moved; posted writes can push it above 1."""
        return self.bytes_per_second / self.config.peak_bytes_per_second
