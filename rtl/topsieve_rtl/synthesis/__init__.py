"""Open-source synthesis and place and route: what a unit costs on an FPGA and how fast it runs there."""

from topsieve_rtl.synthesis.place import Placement, Timing, place_and_route
from topsieve_rtl.synthesis.report import Build, Report, report_unit, resource_table, write_resources
from topsieve_rtl.synthesis.synthesise import Netlist, Resources, Target, synthesise

__all__ = [
    "Build",
    "Netlist",
    "Placement",
    "Report",
    "Resources",
    "Target",
    "Timing",
    "place_and_route",
    "report_unit",
    "resource_table",
    "synthesise",
    "write_resources",
]
