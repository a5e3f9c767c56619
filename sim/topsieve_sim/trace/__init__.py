"""The op list between software and hardware: types, file format, the SpAtten authors' workload CSV."""

from topsieve_sim.trace.file import load_trace, save_trace
from topsieve_sim.trace.groups import AttentionGroup, SingleOp
from topsieve_sim.trace.ops import OP_KINDS, Op, TopKScope
from topsieve_sim.trace.trace import FORMAT_VERSION, Trace
from topsieve_sim.trace.workload import WORKLOADS, load_workload, read_workload

__all__ = [
    "FORMAT_VERSION",
    "OP_KINDS",
    "WORKLOADS",
    "AttentionGroup",
    "Op",
    "SingleOp",
    "TopKScope",
    "Trace",
    "load_trace",
    "load_workload",
    "read_workload",
    "save_trace",
]
