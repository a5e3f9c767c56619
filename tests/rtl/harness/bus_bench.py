"""Run a cocotb bench of bus models on a component's Verilog in Icarus."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from amaranth.lib import wiring

from rtl.harness import tool_or_skip
from topsieve_rtl.tools import executable, package_folder
from topsieve_rtl.verilog.convert import rtlil_text, verilog_text


def run_bus_bench(component: wiring.Component, top: str, bench: str, **settings: str) -> None:
    """Build `component` as module `top` and run every test of the module `bench`; fail if one of them fails.

    `settings` reach the bench as environment variables.
    """
    for tool in ("iverilog", "vvp"):
        tool_or_skip(lambda tool=tool: executable(tool))
    tool_or_skip(lambda: package_folder("cocotb"))
    from cocotb_tools.runner import get_results, get_runner

    with tempfile.TemporaryDirectory(prefix="topsieve-") as name:
        folder = Path(name)
        (folder / "design.v").write_text(f"`timescale 1ns/1ps\n{verilog_text(rtlil_text(component, top))}")
        runner = get_runner("icarus")
        # Icarus 11 leaves constant blocks undefined under -g2012, the runner's default.
        runner.build(
            sources=[folder / "design.v"],
            hdl_toplevel=top,
            build_args=["-g2005"],
            build_dir=folder,
            log_file=folder / "build.log",
            timescale=("1ns", "1ps"),
        )
        log = folder / "run.log"
        try:
            results = runner.test(
                hdl_toplevel=top,
                test_module=bench,
                build_dir=folder,
                test_dir=folder,
                log_file=log,
                extra_env={
                    **settings,
                    "COCOTB_LOG_LEVEL": "WARNING",
                    "PYTHONPATH": os.pathsep.join(path for path in (str(Path(__file__).parents[2]), *sys.path) if path),
                },
                results_xml=str(folder / "results.xml"),
            )
        except SystemExit:
            # The runner's way to say that a test failed; the reason stands in its log.
            raise AssertionError(log.read_text(encoding="utf-8")) from None
        tests, failed = get_results(results)
        assert tests, log.read_text(encoding="utf-8")
        assert not failed, log.read_text(encoding="utf-8")
