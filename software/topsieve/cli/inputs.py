"""Traces named on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from topsieve_sim.trace import Trace


def read_trace(source: str) -> Trace:
    """The trace that `source` names: a published workload, an authors' CSV, or a trace file.

    Raises
    ------
    InputError
        there is no such workload or file, or the file holds something else.
    """
    from topsieve_sim.errors import InputError
    from topsieve_sim.trace import WORKLOADS, load_trace, load_workload, read_workload

    if source in WORKLOADS:
        return load_workload(source)
    if source.endswith((".csv", ".csv.gz")):
        return read_workload(source)
    if not Path(source).exists():
        raise InputError("no such trace file or workload", value=source, allowed=f"a file, {', '.join(WORKLOADS)}")
    return load_trace(source)
