"""`python -m topsieve_rtl.synthesis FILE`: write the resource page of every unit for the presets that are built here."""

import sys

from topsieve_rtl.synthesis.report import write_resources
from topsieve_rtl.units import unit_names

PRESETS = ("tiny", "ecp5", "spatten-eighth")

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m topsieve_rtl.synthesis FILE")
    write_resources(sys.argv[1], unit_names(), PRESETS, progress=print)
