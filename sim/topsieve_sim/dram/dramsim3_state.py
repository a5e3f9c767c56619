"""The `dramsim3` policy's state: what the kernel needs to know of a configuration, and what it keeps per channel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.dram.config import DramConfig, PagePolicy
from topsieve_sim.dram.constraints import dramsim3_constraints
from topsieve_sim.dram.requests import NEVER, NONE, Int64
from topsieve_sim.dram.result import DramCounters

# What a bank would issue next; also the row of `Channels.group_ready`.
ACT, PRE, RD, WR = 0, 1, 2, 3
KINDS = 4
HASH_SLOTS = 1024

# Columns of `Channels.scalars`.
(
    VISIT,
    DONE_BEFORE,
    POINTER,
    DRAIN,
    ESCAPE_LINE,
    READ_HEAD,
    READ_COUNT,
    WRITE_HEAD,
    WRITE_COUNT,
    READ_BANKS,
    WRITE_BANKS,
    FULL_BANKS,
    QUEUED,
    NEXT_REFRESH,
    REFRESH_RANK,
    REFRESHES_DUE,
    FIFO_HEAD,
    READS_OPEN,
    COMMAND_READY,
    OPEN_BANKS,
    COLUMN_BANKS,
    MIXED_BANKS,
) = range(22)
SCALARS = 22

# Rows of `Channels.banks`; each holds one value per bank.
(
    OPEN_ROW,
    HITS,
    ACTIVATE_READY,
    READ_READY,
    WRITE_READY,
    PRECHARGE_READY,
    REFRESH_READY,
    NEXT_READY,
    NEXT_SLOT,
    QUEUE_LENGTH,
    HIT_POSITIONS,
    WRITE_POSITIONS,
    WAITING_READS,
    WAITING_WRITES,
) = range(14)
BANK_ROWS = 14

# Columns of `Channels.ranks` after the ring of four.
WINDOW_HEAD, WINDOW_LENGTH, OPEN_COUNT, OPEN_SINCE = 4, 5, 6, 7
RANK_COLUMNS = 8

# Columns of `Channels.counters`.
(
    READ_COMMANDS,
    WRITE_COMMANDS,
    ACTIVATES,
    PRECHARGES,
    CONFLICTS,
    REFRESHES,
    DUAL_COMMANDS,
    ROW_HITS,
    FORWARDED_READS,
    MERGED_READS,
    ABSORBED_WRITES,
    ACTIVE_CYCLES,
    ESCAPED_LIVELOCKS,
) = range(13)
COUNTERS = 13


# Entries of `Machine.cycles`: command-to-command cycles as in `constraints.Constraints`.
CYCLES = (
    "read_done",
    "read_precharge",
    "write_precharge",
    "read_activate",
    "write_activate",
    "read_refresh",
    "activate_read",
    "activate_write",
    "activate_precharge",
    "activate_activate_same_bank",
    "precharge_activate",
    "precharge_refresh",
    "refresh_activate",
    "four_activates",
)
(
    READ_DONE,
    READ_PRECHARGE,
    WRITE_PRECHARGE,
    READ_ACTIVATE,
    WRITE_ACTIVATE,
    READ_REFRESH,
    ACTIVATE_READ,
    ACTIVATE_WRITE,
    ACTIVATE_PRECHARGE,
    ACTIVATE_ACTIVATE,
    PRECHARGE_ACTIVATE,
    PRECHARGE_REFRESH,
    REFRESH_ACTIVATE,
    FOUR_ACTIVATES,
) = range(len(CYCLES))


class Machine(NamedTuple):
    """What the kernel needs to know of the configuration."""

    banks: int
    banks_per_rank: int
    groups: int
    groups_per_rank: int
    ranks: int
    group_shift: int
    """Bank number to bank group."""
    rank_shift: int
    bank_queue: int
    read_queue: int
    write_buffer: int
    row_hit_cap: int
    write_drain_threshold: int
    closed_page: int
    dual_command: int
    refresh_interval: int
    column_gap: int
    """Least cycles from a column command to any other of the channel, at least 1."""
    activate_gap: int
    """Least cycles from an activate to any other of the channel, at least 1."""
    cycles: Int64
    column_delta: Int64
    """int64 [2, groups, 2 * groups]: cycles from a read or write in a group to reads, then writes, of every group."""
    activate_delta: Int64
    """int64 [groups, groups]: cycles from an activate to an activate in every group."""


class Channels(NamedTuple):
    """State of all channels; the first axis is the channel."""

    scalars: Int64
    counters: Int64
    banks: Int64
    """int64 [channels, rows, banks]: open row; hits since its activate; cycle from which the bank itself allows an
    activate, read, write, precharge and refresh; its next command's cycle (NEVER without waiting commands) and index into
    `group_ready`; length of its queue; bit p set if the p-th waiting command hits the open row, or is a write; entries of
    the read queue and of the write buffer that go to it."""
    group_ready: Int64
    """int64 [channels, 4 * groups]: activate, precharge (always 0), read, write as far as the group is concerned."""
    queue: Int64
    """int64 [channels, banks * bank_queue]: requests in order of arrival."""
    ranks: Int64
    """int64 [channels, ranks, 8]: ends of up to four activate windows, their ring's head and length; open banks, and the
    cycle since which there are any."""
    reads: Int64
    """int64 [channels, ring]: read queue."""
    writes: Int64
    line_counts: NDArray[np.int16]
    """int16 [channels, 2, 1024]: pending reads, then writes, by hashed line."""


def machine(config: DramConfig) -> Machine:
    """The kernel's view of a configuration."""
    table, organization, controller = dramsim3_constraints(config), config.organization, config.controller
    groups, per_rank = organization.groups_per_channel, organization.bank_groups
    column = np.zeros((2, groups, 2 * groups), np.int64)
    activate = np.full((groups, groups), -NEVER, np.int64)
    for source in range(groups):
        for target in range(groups):
            if source // per_rank != target // per_rank:
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
        banks_per_rank=organization.banks_per_rank,
        groups=groups,
        groups_per_rank=per_rank,
        ranks=organization.ranks,
        group_shift=organization.banks_per_group.bit_length() - 1,
        rank_shift=organization.banks_per_rank.bit_length() - 1,
        bank_queue=controller.bank_queue,
        read_queue=controller.read_queue,
        write_buffer=controller.write_buffer,
        row_hit_cap=controller.row_hit_cap,
        write_drain_threshold=controller.write_drain_threshold,
        closed_page=int(controller.page is PagePolicy.CLOSED),
        dual_command=int(controller.dual_command),
        refresh_interval=table.refresh_interval,
        column_gap=max(1, int(column.min())),
        activate_gap=max(1, int(activate.min())),
        cycles=np.array([getattr(table, name) for name in CYCLES], np.int64),
        column_delta=column,
        activate_delta=activate,
    )


def fresh_channels(config: DramConfig) -> Channels:
    """All channels at cycle 0: every bank closed, every queue empty."""
    organization, controller = config.organization, config.controller
    channels, banks, groups = organization.channels, organization.banks_per_channel, organization.groups_per_channel

    def zeros(*shape: int) -> Int64:
        return np.zeros((channels, *shape), np.int64)

    def ring(entries: int) -> Int64:
        return zeros(1 << (entries - 1).bit_length() if entries > 1 else 1)

    scalars = zeros(SCALARS)
    scalars[:, ESCAPE_LINE] = NONE
    scalars[:, FIFO_HEAD] = NONE
    scalars[:, COMMAND_READY] = NEVER
    scalars[:, NEXT_REFRESH] = dramsim3_constraints(config).refresh_interval
    state = zeros(BANK_ROWS, banks)
    state[:, OPEN_ROW] = NONE
    state[:, NEXT_READY] = NEVER
    return Channels(
        scalars=scalars,
        counters=zeros(COUNTERS),
        banks=state,
        group_ready=zeros(KINDS * groups),
        queue=zeros(banks * controller.bank_queue),
        ranks=zeros(organization.ranks, RANK_COLUMNS),
        reads=ring(controller.read_queue),
        writes=ring(controller.write_buffer),
        line_counts=np.zeros((channels, 2, HASH_SLOTS), np.int16),
    )


def open_ranks(state: Channels) -> tuple[Int64, Int64]:
    """Open banks of every rank and the cycle since which there are any; int64 [channels, ranks] each."""
    return state.ranks[:, :, OPEN_COUNT], state.ranks[:, :, OPEN_SINCE]


def counters(totals: list[int], active_cycles: int, idle_cycles: int) -> DramCounters:
    """Name the columns of `Channels.counters`, summed over the channels."""
    return DramCounters(
        read_commands=totals[READ_COMMANDS],
        write_commands=totals[WRITE_COMMANDS],
        activates=totals[ACTIVATES],
        precharges=totals[PRECHARGES],
        row_conflicts=totals[CONFLICTS],
        refreshes=totals[REFRESHES],
        dual_commands=totals[DUAL_COMMANDS],
        row_hits=totals[ROW_HITS],
        forwarded_reads=totals[FORWARDED_READS],
        merged_reads=totals[MERGED_READS],
        absorbed_writes=totals[ABSORBED_WRITES],
        active_cycles=active_cycles,
        escaped_livelocks=totals[ESCAPED_LIVELOCKS],
        row_misses=totals[READ_COMMANDS] + totals[WRITE_COMMANDS] - totals[ROW_HITS],
        idle_cycles=idle_cycles,
    )
