"""What each unit of the core does in a cycle, for the performance counters.

While a unit does not work, the first missing thing counts: its input, then data from memory, then room downstream
(`docs/attention-unit.md`, section "Where cycles go").
"""

from __future__ import annotations

from amaranth import Mux, Value
from amaranth.lib import data

from topsieve_sim.timing.accounting import BUSY, DOWNSTREAM, INPUT, MEMORY_WAIT


class Progress(data.StructLayout):
    """The state of an engine in a cycle: it works, or it does not though something is offered to it."""

    def __init__(self) -> None:
        super().__init__({"works": 1, "offered": 1})


def cause(progress: data.View, supplied: Value | int = 1) -> Value:
    """The cause of a cycle; `supplied` says whether what must come from memory is there."""
    waits = Mux(supplied, DOWNSTREAM, MEMORY_WAIT)
    return Mux(progress.works, BUSY, Mux(progress.offered, waits, INPUT))
