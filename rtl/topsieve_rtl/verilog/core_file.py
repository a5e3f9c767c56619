"""FuseSoC core description file (CAPI2) with lint, simulation and synthesis targets."""

from __future__ import annotations

import json

from topsieve_sim import __version__


def core_text(top: str, summary: str, bench: str = "") -> str:
    """Text of `<top>.core`; `bench` is a module between testbench and unit, in a file of its name."""
    between = f"\n      - {bench}.v: {{file_type: verilogSource-2005}}" if bench else ""
    return f"""CAPI=2:
name: topsieve:rtl:{top}:{_core_version()}
description: {json.dumps(summary)}

filesets:
  rtl:
    files:
      - {top}.v
    file_type: verilogSource-2005
  testbench:
    files:{between}
      - {top}_tb.v: {{file_type: verilogSource-2005}}
      - {top}_vectors.hex: {{file_type: user, copyto: {top}_vectors.hex}}

targets:
  default: &default
    filesets: [rtl]
    toplevel: {top}

  lint:
    <<: *default
    description: Lint with Verilator
    default_tool: verilator
    tools:
      verilator:
        mode: lint-only
        # The Verilog is generated from sized expressions; a sum that is one bit wider than its operands is meant.
        verilator_options: [-Wno-WIDTH]

  sim:
    filesets: [rtl, testbench]
    toplevel: {top}_tb
    description: Self-checking testbench in Icarus Verilog
    default_tool: icarus
    tools:
      icarus:
        iverilog_options: [-g2005]

  synth:
    <<: *default
    description: Synthesis for Lattice ECP5 with yosys
    default_tool: yosys
    tools:
      yosys:
        arch: ecp5
        output_format: json
"""


def _core_version() -> str:
    # FuseSoC takes dotted numbers only.
    numbers = __version__.split("+")[0].split(".")
    return ".".join(part for part in numbers if part.isdigit()) or "0"
