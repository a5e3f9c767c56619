"""The `ramulator` policy's state: what the kernel needs to know of a configuration, and what it keeps per channel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from topsieve_sim.dram.config import DramConfig
from topsieve_sim.dram.constraints import ramulator_constraints
from topsieve_sim.dram.requests import NEVER, NONE, Int64
from topsieve_sim.dram.result import DramCounters

# The command a request needs next.
ACT, PRE, RD, WR = 0, 1, 2, 3
# Command buses.
COLUMN, ROW, ANY = 0, 1, 2

# Columns of `Channels.scalars`.
(
    VISIT,
    DONE_BEFORE,
    READ_COUNT,
    WRITE_COUNT,
    ACTIVE_COUNT,
    WRITE_MODE,
    MODE_STALE,
    NEXT_REFRESH,
    REFRESH_HEAD,
    REFRESHES_DUE,
    ROW_BUS,
    FIFO_HEAD,
    READS_OPEN,
) = range(13)
SCALARS = 13

# Rows of `Channels.banks`; each holds one value per bank.
OPEN_ROW, ACTIVATE_READY, READ_READY, WRITE_READY, PRECHARGE_READY, CLAIMS = range(6)
BANK_ROWS = 6

# Columns of `Channels.units` after the ring of four.
WINDOW_NEXT, REFRESH_READY, OPEN_COUNT, OPEN_SINCE = 4, 5, 6, 7
UNIT_COLUMNS = 8

# Columns of `Channels.counters`.
(
    READ_COMMANDS,
    WRITE_COMMANDS,
    ACTIVATES,
    PRECHARGES,
    REFRESHES,
    DUAL_COMMANDS,
    ROW_HITS,
    ROW_MISSES,
    ROW_CONFLICTS,
    FORWARDED_READS,
    ABSORBED_WRITES,
    ACTIVE_CYCLES,
) = range(12)
COUNTERS = 12


class Machine(NamedTuple):
    """What the kernel needs to know of the configuration."""

    banks: int
    banks_per_unit: int
    group_shift: int
    """Bank number to bank group."""
    unit_shift: int
    groups: int
    groups_per_unit: int
    units: int
    """Ranks of all pseudo-channels: what a refresh covers."""
    read_buffer: int
    write_buffer: int
    write_mode_above: float
    write_mode_below: float
    two_buses: int
    read_done: int
    read_precharge: int
    write_precharge: int
    activate_read: int
    activate_write: int
    activate_precharge: int
    activate_activate: int
    activate_refresh: int
    precharge_activate: int
    precharge_refresh: int
    refresh_activate: int
    refresh_interval: int
    four_activates: int
    activate_cycles: int
    column_delta: Int64
    """int64 [2, groups, 2 * groups]: cycles from a read or write in a group to reads, then writes, of every group."""
    activate_delta: Int64
    """int64 [groups, groups]: cycles from an activate to an activate in every group."""


class Channels(NamedTuple):
    """State of all channels; the first axis is the channel. A unit is a rank of a pseudo-channel."""

    scalars: Int64
    counters: Int64
    banks: Int64
    """int64 [channels, rows, banks]: open row; cycle from which the bank itself allows an activate, read, write and
    precharge; active requests (a bank with any may not be precharged)."""
    group_ready: Int64
    """int64 [channels, 4 * groups]: activate, precharge (always 0), read, write as far as the group is concerned."""
    units: Int64
    """int64 [channels, units, 8]: ends of the last four activate windows and their ring's position; cycle from which a
    refresh is allowed; open banks, and the cycle since which there are any."""
    reads: Int64
    """int64 [channels, entries]: read buffer, oldest first."""
    writes: Int64
    active: Int64


def machine(config: DramConfig) -> Machine:
    """The kernel's view of a configuration."""
    table, organization, controller = ramulator_constraints(config), config.organization, config.controller
    groups, per_unit = organization.groups_per_channel, organization.bank_groups
    per_pseudo_channel = per_unit * organization.ranks
    column = np.full((2, groups, 2 * groups), -NEVER, np.int64)
    activate = np.full((groups, groups), -NEVER, np.int64)
    for source in range(groups):
        for target in range(groups):
            if source // per_pseudo_channel != target // per_pseudo_channel:
                continue
            if source // per_unit != target // per_unit:
                cycles = (
                    table.read_read_other_rank,
                    table.read_write_other_rank,
                    table.write_read_other_rank,
                    table.write_write_other_rank,
                )
            else:
                same = source == target
                cycles = (
                    table.read_read_same_group if same else table.read_read_other_group,
                    table.read_write_same_rank,
                    table.write_read_same_group if same else table.write_read_other_group,
                    table.write_write_same_group if same else table.write_write_other_group,
                )
                activate[source, target] = (
                    table.activate_activate_same_group if same else table.activate_activate_other_group
                )
            column[0, source, target], column[0, source, groups + target] = cycles[0], cycles[1]
            column[1, source, target], column[1, source, groups + target] = cycles[2], cycles[3]
    return Machine(
        banks=organization.banks_per_channel,
        banks_per_unit=organization.banks_per_rank,
        group_shift=organization.banks_per_group.bit_length() - 1,
        unit_shift=organization.banks_per_rank.bit_length() - 1,
        groups=groups,
        groups_per_unit=per_unit,
        units=organization.ranks * organization.pseudo_channels,
        read_buffer=controller.read_queue,
        write_buffer=controller.write_buffer,
        write_mode_above=controller.write_high_watermark * controller.write_buffer,
        write_mode_below=controller.write_low_watermark * controller.write_buffer,
        two_buses=int(controller.dual_command),
        read_done=table.read_done,
        read_precharge=table.read_precharge,
        write_precharge=table.write_precharge,
        activate_read=table.activate_read,
        activate_write=table.activate_write,
        activate_precharge=table.activate_precharge,
        activate_activate=table.activate_activate_same_bank,
        activate_refresh=table.activate_activate_same_bank + config.timing.activate_cycles - 1,
        precharge_activate=table.precharge_activate,
        precharge_refresh=table.precharge_refresh,
        refresh_activate=table.refresh_activate,
        refresh_interval=table.refresh_interval,
        four_activates=table.four_activates,
        activate_cycles=config.timing.activate_cycles,
        column_delta=column,
        activate_delta=activate,
    )


def fresh_channels(config: DramConfig) -> Channels:
    """All channels at cycle 0: every bank closed, every buffer empty."""
    organization, controller = config.organization, config.controller
    channels, banks = organization.channels, organization.banks_per_channel
    units = organization.ranks * organization.pseudo_channels

    def zeros(*shape: int) -> Int64:
        return np.zeros((channels, *shape), np.int64)

    scalars = zeros(SCALARS)
    scalars[:, FIFO_HEAD] = NONE
    # The clock counts before the refresh timer looks at it.
    scalars[:, NEXT_REFRESH] = config.timing.tREFI - 1
    state = zeros(BANK_ROWS, banks)
    state[:, OPEN_ROW] = NONE
    return Channels(
        scalars=scalars,
        counters=zeros(COUNTERS),
        banks=state,
        group_ready=zeros(4 * organization.groups_per_channel),
        units=zeros(units, UNIT_COLUMNS),
        reads=zeros(controller.read_queue),
        writes=zeros(controller.write_buffer),
        active=zeros(banks),
    )


def open_ranks(state: Channels) -> tuple[Int64, Int64]:
    """Open banks of every rank and the cycle since which there are any; int64 [channels, units] each."""
    return state.units[:, :, OPEN_COUNT], state.units[:, :, OPEN_SINCE]


def counters(totals: list[int], active_cycles: int, idle_cycles: int) -> DramCounters:
    """Name the columns of `Channels.counters`, summed over the channels."""
    return DramCounters(
        read_commands=totals[READ_COMMANDS],
        write_commands=totals[WRITE_COMMANDS],
        activates=totals[ACTIVATES],
        precharges=totals[PRECHARGES],
        row_conflicts=totals[ROW_CONFLICTS],
        refreshes=totals[REFRESHES],
        dual_commands=totals[DUAL_COMMANDS],
        row_hits=totals[ROW_HITS],
        forwarded_reads=totals[FORWARDED_READS],
        merged_reads=0,
        absorbed_writes=totals[ABSORBED_WRITES],
        active_cycles=active_cycles,
        escaped_livelocks=0,
        row_misses=totals[ROW_MISSES],
        idle_cycles=idle_cycles,
    )
