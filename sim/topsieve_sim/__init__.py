"""Cycle-level simulator of a SpAtten-style attention accelerator.

Floor 1 of the house: `arch` (configuration, number formats), `trace` (the op list), `golden` (bit-true integer
models), `timing` (beat times by max-plus recurrences), `stepped` (the same units clock by clock), `energy`
(energy and area tables), `engine` (a trace on a machine) and `report`.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("topsieve")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
