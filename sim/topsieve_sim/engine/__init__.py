"""The engine: a trace on a machine, with cycles, stalls, bytes and energy."""

from topsieve_sim.engine.program import AttentionWork, Program, prepare
from topsieve_sim.engine.simulate import simulate

__all__ = ["AttentionWork", "Program", "prepare", "simulate"]
