"""The units clock by clock in plain Python: the definition of a cycle that the fast timing functions must equal."""

from topsieve_sim.stepped.base import SteppedUnit, StreamLog, run_stepped

__all__ = ["SteppedUnit", "StreamLog", "run_stepped"]
