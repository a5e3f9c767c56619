"""cocotb with Icarus Verilog or with Verilator: the shipped Verilog in two independent simulators."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topsieve_rtl.cosim.design import Design
from topsieve_rtl.cosim.player import RawCase, RawLog
from topsieve_rtl.tools import MissingToolError, ToolError, built_once, digest, executable, package_folder, run_tool

_BENCH = "topsieve_rtl.cosim.cocotb_bench"
# The bench counts in simulator steps; the value only has to be one that both simulators accept.
_TIMESCALE = "1ns/1ns"
# Icarus 11 reads SystemVerilog's `always_comb` start-up rules into `-g2012` and leaves constant blocks undefined.
_ICARUS_OPTIONS = ("-g2005",)
_VERILATOR_OPTIONS = ("-Wno-fatal", "--vpi", "-O3")
# The makefile of the packaged Verilator was never configured; this is the one setting that it lacks.
_MAKE_FLAGS = "CFG_CXXFLAGS_PCH_I=-include"


def run_icarus(design: Design, cases: Sequence[RawCase]) -> list[RawLog]:
    """Run each case from reset in Icarus Verilog.

    Raises
    ------
    MissingToolError
        no iverilog or no cocotb.
    """
    library_folder, libraries = _cocotb()
    folder = build_icarus(design)
    command = [executable("vvp"), "-M", str(library_folder), "-m", libraries["icarus"]]
    return _play(design, cases, [*command, str(folder / "design.vvp"), "-none"])


def build_icarus(design: Design) -> Path:
    """Folder of the compiled design, compiled if it is not there.

    Raises
    ------
    MissingToolError
        no iverilog.
    """
    compiler = executable("iverilog")

    def build(folder: Path) -> None:
        (folder / "design.v").write_text(f"`timescale {_TIMESCALE}\n{design.verilog}")
        run_tool([compiler, *_ICARUS_OPTIONS, "-s", design.name, "-o", "design.vvp", "design.v"], cwd=folder)

    return built_once("icarus", digest(design.rtlil, _TIMESCALE, *_ICARUS_OPTIONS), build)


def run_verilator(design: Design, cases: Sequence[RawCase]) -> list[RawLog]:
    """Run each case from reset in Verilator, from the Python package of that name.

    Raises
    ------
    MissingToolError
        no verilator package, cocotb, perl, make or g++.
    """
    command = [str(build_verilator(design) / "simulation")]
    return _play(design, cases, command, {"COCOTB_TRUST_INERTIAL_WRITES": "1"})


def build_verilator(design: Design) -> Path:
    """Folder of the compiled design, compiled if it is not there.

    Raises
    ------
    MissingToolError
        no verilator package, cocotb, perl, make or g++.
    """
    library_folder, _ = _cocotb()
    root = package_folder("verilator")
    perl, make = executable("perl"), executable("make")
    executable("g++")

    def build(folder: Path) -> None:
        import cocotb_tools.config

        (folder / "design.v").write_text(f"`timescale {_TIMESCALE}\n{design.verilog}")
        (folder / "design.vlt").write_text(_visible_ports(design))
        bench = Path(cocotb_tools.config.share_dir) / "lib" / "verilator" / "verilator.cpp"
        link = f"-Wl,-rpath,{library_folder} -L{library_folder} -lcocotbvpi_verilator"
        command = [perl, str(root / "bin" / "verilator"), "-cc", "--exe", "-Mdir", ".", "--top-module", design.name]
        command += [*_VERILATOR_OPTIONS, "--prefix", "Vtop", "-o", "simulation", "-LDFLAGS", link]
        run_tool(
            [*command, str(bench), "design.vlt", "design.v"], cwd=folder, environment={"VERILATOR_ROOT": str(root)}
        )
        run_tool(
            [make, "-j", "2", "-f", "Vtop.mk", "VM_TRACE=0"],
            cwd=folder,
            environment={"MAKEFLAGS": _MAKE_FLAGS, "VERILATOR_ROOT": str(root)},
        )

    key = digest(design.rtlil, _TIMESCALE, _visible_ports(design), *_VERILATOR_OPTIONS, str(root))
    return built_once("verilator", key, build)


def _cocotb() -> tuple[Path, dict[str, str]]:
    package_folder("cocotb")
    import cocotb_tools.config

    return Path(cocotb_tools.config.libs_dir), {
        "icarus": Path(cocotb_tools.config.lib_entry("vpi", "icarus")).as_posix()
    }


def _visible_ports(design: Design) -> str:
    """Verilator control file that opens the ports to the bench, and nothing else: a tenth of the build time."""
    names = ["clk", "rst"]
    for port in (*design.sources, *design.sinks):
        names += [f"{port.name}__valid", f"{port.name}__ready"] + ([f"{port.name}__payload"] if port.bits else [])
    names += [port.name for port in (*design.constants, *design.status) if port.bits]
    lines = [f'public_flat_rw -module "{design.name}" -var "{name}"' for name in names]
    return "\n".join(["`verilator_config", *lines]) + "\n"


def _play(
    design: Design, cases: Sequence[RawCase], command: Sequence[str], extra: dict[str, str] | None = None
) -> list[RawLog]:
    import cocotb_tools.config
    import find_libpython

    libpython = find_libpython.find_libpython()
    if libpython is None:
        raise MissingToolError("libpython")
    job: dict[str, Any] = {
        "ports": {
            kind: [[port.name, port.bits] for port in ports]
            for kind, ports in (
                ("sources", design.sources),
                ("sinks", design.sinks),
                ("constants", design.constants),
                ("status", design.status),
            )
        },
        "cases": [case.plain() for case in cases],
    }
    with tempfile.TemporaryDirectory(prefix="topsieve-") as name:
        folder = Path(name)
        (folder / "cases.json").write_text(json.dumps(job), encoding="utf-8")
        environment = {
            "COCOTB_TOPLEVEL": design.name,
            "COCOTB_TEST_MODULES": _BENCH,
            "COCOTB_RESULTS_FILE": str(folder / "results.xml"),
            "COCOTB_LOG_LEVEL": "WARNING",
            "TOPLEVEL_LANG": "verilog",
            "GPI_USERS": ";".join([libpython, cocotb_tools.config.pygpi_entry_point()]),
            "PYGPI_PYTHON_BIN": sys.executable,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "TOPSIEVE_CASES": str(folder / "cases.json"),
            "TOPSIEVE_LOGS": str(folder / "logs.json"),
            **(extra or {}),
        }
        done = run_tool(command, cwd=folder, environment=environment)
        logs = folder / "logs.json"
        if not logs.exists():
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-40:])
            raise ToolError(f"the bench of {design.name} wrote no logs:\n{tail}")
        return [RawLog(**log) for log in json.loads(logs.read_text(encoding="utf-8"))]
