"""The rule of the house on the netlist: no combinational path from an input port to an output port."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from amaranth.lib import wiring

from topsieve_rtl.verilog.convert import netlist_json, rtlil_text


def combinational_paths(component: wiring.Component) -> list[tuple[str, str]]:
    """Pairs (input port, output port) joined without a register; empty for a unit that keeps the rule."""
    netlist = json.loads(netlist_json(rtlil_text(component, "unit")))
    (module,) = netlist["modules"].values()
    drives: dict[int, set[int]] = defaultdict(set)
    for cell in module["cells"].values():
        if _registered(cell):
            continue
        ends: dict[str, set[int]] = {"input": set(), "output": set()}
        for port, bits in cell["connections"].items():
            ends[cell["port_directions"][port]].update(bit for bit in bits if isinstance(bit, int))
        for bit in ends["input"]:
            drives[bit] |= ends["output"]
    ports = module["ports"]
    found = []
    for name, port in ports.items():
        if port["direction"] != "input" or name == "clk":
            continue
        reached = _reach(drives, {bit for bit in port["bits"] if isinstance(bit, int)})
        found += [
            (name, other)
            for other, end in ports.items()
            if end["direction"] == "output" and reached & {bit for bit in end["bits"] if isinstance(bit, int)}
        ]
    return sorted(found)


def _registered(cell: dict[str, Any]) -> bool:
    kind = cell["type"]
    if kind.startswith("$memrd"):
        return bool(int(cell["parameters"]["CLK_ENABLE"], 2))
    return "dff" in kind or kind.startswith(("$memwr", "$meminit"))


def _reach(drives: dict[int, set[int]], start: set[int]) -> set[int]:
    reached, waiting = set(start), list(start)
    while waiting:
        for bit in drives[waiting.pop()] - reached:
            reached.add(bit)
            waiting.append(bit)
    return reached
