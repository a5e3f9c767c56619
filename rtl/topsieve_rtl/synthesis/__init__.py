"""Open-source synthesis and place and route: what a unit costs on an FPGA and how fast it runs there."""

from topsieve_rtl.synthesis.place import Timing, place_and_route
from topsieve_rtl.synthesis.synthesise import Netlist, Resources, Target, synthesise

__all__ = ["Netlist", "Resources", "Target", "Timing", "place_and_route", "synthesise"]
