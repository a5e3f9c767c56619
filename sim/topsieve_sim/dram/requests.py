"""The request table both kernels read and fill, and the command log they may write."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]

NEVER = 1 << 60
"""A cycle no simulation reaches."""
NONE = -1
"""No request, no row, no cycle yet."""

READ, READ_AUTO, WRITE, WRITE_AUTO, ACTIVATE, PRECHARGE, REFRESH = 0, 1, 2, 3, 4, 5, 7
"""Command numbers of a command stream; 6 would be a per-bank refresh, which no policy here issues."""


class Requests(NamedTuple):
    """One row per request. A channel's requests form a list in order of submission."""

    line: Int64
    """Address in units of one access."""
    bank: Int32
    """Bank number inside the channel."""
    row: Int32
    is_write: NDArray[np.uint8]
    arrival: Int64
    """Cycle from which the request may be accepted."""
    next_in_channel: Int64
    accept: Int64
    complete: Int64
    next_merged: Int64
    """Next read of the same line that completes together with this one."""


class CommandLog(NamedTuple):
    """Issued commands of one channel in order; `used[0]` of the rows are filled. Zero rows: nothing is recorded."""

    cycle: Int64
    kind: Int32
    bank: Int32
    """Bank number inside the channel; the rank's (or pseudo-channel's) first bank for a refresh."""
    request: Int64
    """The request the command serves, NONE for a command that serves a refresh."""
    used: Int64


def empty_requests(rows: int) -> Requests:
    """A table with room for `rows` requests; its contents mean nothing yet."""
    return Requests(
        line=np.empty(rows, np.int64),
        bank=np.empty(rows, np.int32),
        row=np.empty(rows, np.int32),
        is_write=np.empty(rows, np.uint8),
        arrival=np.empty(rows, np.int64),
        next_in_channel=np.empty(rows, np.int64),
        accept=np.empty(rows, np.int64),
        complete=np.empty(rows, np.int64),
        next_merged=np.empty(rows, np.int64),
    )


def empty_log(rows: int) -> CommandLog:
    """A command log with room for `rows` commands."""
    return CommandLog(
        cycle=np.zeros(rows, np.int64),
        kind=np.zeros(rows, np.int32),
        bank=np.zeros(rows, np.int32),
        request=np.zeros(rows, np.int64),
        used=np.zeros(1, np.int64),
    )
