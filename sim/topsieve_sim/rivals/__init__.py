"""Rivals of the accelerator at equal multipliers, bandwidth and precision: `compare(trace, config, build_all(DEFAULT))`."""

from topsieve_sim.rivals.comparison import Comparison, Row, compare, runnable
from topsieve_sim.rivals.machine import Basis, Rival
from topsieve_sim.rivals.registry import DEFAULT, RIVALS, build, build_all
from topsieve_sim.rivals.roofline import Roofline, load_platform, platform_names
from topsieve_sim.rivals.systolic import Dataflow, Systolic, systolic_cycles

__all__ = [
    "DEFAULT",
    "RIVALS",
    "Basis",
    "Comparison",
    "Dataflow",
    "Rival",
    "Roofline",
    "Row",
    "Systolic",
    "build",
    "build_all",
    "compare",
    "load_platform",
    "platform_names",
    "runnable",
    "systolic_cycles",
]
