"""Command-to-command cycles, derived from the timing parameters once, for each of the two policies.

Sources: JEDEC's definitions of the parameters; the rounding and the turn-around terms are those that the two simulators
publish in their resolved tables (specification `simulators`, section 1.8; `docs/dram.md`).
"""

from __future__ import annotations

from dataclasses import dataclass

from topsieve_sim.dram.config import DramConfig


@dataclass(frozen=True)
class Constraints:
    """Least cycles between two commands of a channel. `other_rank` values may be negative: no constraint."""

    read_done: int
    """Read command to the cycle in which its data has arrived."""
    read_read_same_group: int
    read_read_other_group: int
    read_read_other_rank: int
    read_write_same_rank: int
    read_write_other_rank: int
    write_read_same_group: int
    write_read_other_group: int
    write_read_other_rank: int
    write_write_same_group: int
    write_write_other_group: int
    write_write_other_rank: int
    read_precharge: int
    write_precharge: int
    read_activate: int
    """Read with auto-precharge to activate of the same bank."""
    write_activate: int
    """Write with auto-precharge to activate of the same bank."""
    read_refresh: int
    """Read with auto-precharge to refresh."""
    activate_activate_same_bank: int
    activate_activate_same_group: int
    activate_activate_other_group: int
    activate_read: int
    activate_write: int
    activate_precharge: int
    four_activates: int
    precharge_activate: int
    precharge_refresh: int
    refresh_activate: int
    refresh_interval: int
    """Cycles between two refreshes of a channel (dramsim3: ranks take turns; ramulator: all ranks together)."""


def dramsim3_constraints(config: DramConfig) -> Constraints:
    """The table of the `dramsim3` policy."""
    timing, burst = config.timing, config.organization.burst_cycles
    read_latency, write_latency = timing.AL + timing.CL, timing.AL + timing.CWL
    read_done, write_done = read_latency + burst, write_latency + burst
    write_precharge = write_done + timing.tWR
    read_precharge = timing.AL + timing.tRTP
    return Constraints(
        read_done=read_done,
        read_read_same_group=max(burst, timing.tCCD_L),
        read_read_other_group=max(burst, timing.tCCD_S),
        read_read_other_rank=burst + timing.tRTRS,
        read_write_same_rank=read_done - write_latency + timing.tRTRS,
        read_write_other_rank=read_done + burst + timing.tRTRS - write_done,
        write_read_same_group=write_done + timing.tWTR_L,
        write_read_other_group=write_done + timing.tWTR_S,
        write_read_other_rank=write_done + burst + timing.tRTRS - read_done,
        write_write_same_group=max(burst, timing.tCCD_L),
        write_write_other_group=max(burst, timing.tCCD_S),
        write_write_other_rank=burst,
        read_precharge=read_precharge,
        write_precharge=write_precharge,
        read_activate=timing.AL + burst + timing.tRTP + timing.tRP,
        write_activate=write_precharge + timing.tRP,
        read_refresh=read_precharge + timing.tRP,
        activate_activate_same_bank=timing.tRC,
        activate_activate_same_group=timing.tRRD_L,
        activate_activate_other_group=timing.tRRD_S,
        activate_read=timing.tRCDRD - timing.AL,
        activate_write=timing.tRCDWR - timing.AL,
        activate_precharge=timing.tRAS,
        four_activates=timing.tFAW,
        precharge_activate=timing.tRP,
        precharge_refresh=timing.tRP,
        refresh_activate=timing.tRFC,
        refresh_interval=timing.tREFI // config.organization.ranks,
    )


def ramulator_constraints(config: DramConfig) -> Constraints:
    """The table of the `ramulator` policy.

    An activate that takes two cycles on the row bus counts from its second cycle: what follows it waits one cycle longer,
    what it waits for may end one cycle later.
    """
    timing, burst = config.timing, config.organization.burst_cycles
    extra = timing.activate_cycles - 1
    write_done = timing.CWL + burst
    return Constraints(
        read_done=timing.CL + burst,
        read_read_same_group=timing.tCCD_L,
        read_read_other_group=timing.tCCD_S,
        read_read_other_rank=burst + timing.tRTRS,
        read_write_same_rank=timing.CL + burst + 2 - timing.CWL,
        read_write_other_rank=burst + timing.tRTRS,
        write_read_same_group=write_done + timing.tWTR_L,
        write_read_other_group=write_done + timing.tWTR_S,
        write_read_other_rank=write_done + timing.tRTRS - timing.CL,
        write_write_same_group=timing.tCCD_L,
        write_write_other_group=timing.tCCD_S,
        write_write_other_rank=burst,
        read_precharge=timing.tRTP,
        write_precharge=write_done + timing.tWR,
        read_activate=timing.tRTP + timing.tRP - extra,
        write_activate=write_done + timing.tWR + timing.tRP - extra,
        read_refresh=timing.tRTP + timing.tRP,
        activate_activate_same_bank=timing.tRC,
        activate_activate_same_group=timing.tRRD_L,
        activate_activate_other_group=timing.tRRD_S,
        activate_read=timing.tRCDRD + extra,
        activate_write=timing.tRCDWR + extra,
        activate_precharge=timing.tRAS + extra,
        four_activates=timing.tFAW,
        precharge_activate=timing.tRP - extra,
        precharge_refresh=timing.tRP,
        refresh_activate=timing.tRFC - extra,
        refresh_interval=timing.tREFI,
    )
