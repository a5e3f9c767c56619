"""Token pruning and merging methods, what they cost on hardware, and the command line over all of it."""

from topsieve_sim import __version__

__all__ = ["__version__"]
