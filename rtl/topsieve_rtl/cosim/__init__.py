"""RTL under test: one interface over Amaranth's simulator, CXXRTL, cocotb with Icarus and cocotb with Verilator.

`run(Design(component, "name"), [Case.through(...)], Engine.CXXRTL)` returns, for each case, the cycle and the payload
of every beat on every stream port, in the terms of `topsieve_sim.stepped`.
"""

from topsieve_rtl.cosim.cases import Case, Channel, RunLog, Sink, Source
from topsieve_rtl.cosim.codec import only_valid_lanes
from topsieve_rtl.cosim.design import Design
from topsieve_rtl.cosim.divergence import Divergence, Event, first_divergence
from topsieve_rtl.cosim.engines import Engine, prepare, require_engine, run

__all__ = [
    "Case",
    "Channel",
    "Design",
    "Divergence",
    "Engine",
    "Event",
    "RunLog",
    "Sink",
    "Source",
    "first_divergence",
    "only_valid_lanes",
    "prepare",
    "require_engine",
    "run",
]
