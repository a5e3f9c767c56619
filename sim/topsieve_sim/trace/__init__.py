"""The op list between software and hardware: types, file format, the SpAtten authors' workload CSV."""

from topsieve_sim.trace.groups import AttentionGroup, SingleOp
from topsieve_sim.trace.ops import OP_KINDS, Op, TopKScope
from topsieve_sim.trace.trace import FORMAT_VERSION, Trace

__all__ = ["FORMAT_VERSION", "OP_KINDS", "AttentionGroup", "Op", "SingleOp", "TopKScope", "Trace"]
