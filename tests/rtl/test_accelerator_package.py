# amaranth: UnusedElaboratable=no
"""The emitted accelerator: its testbench replays layers and can fail, its drivers compile and speak to the registers."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from types import ModuleType

import pytest

from rtl.harness import tool_or_skip
from rtl.harness.csr_model import RegisterModel
from topsieve_rtl.csr import ACCELERATOR_MAP, fixed_fields
from topsieve_rtl.tools import executable
from topsieve_rtl.verilog.package import emit_unit
from topsieve_sim.arch import load_config
from topsieve_sim.errors import InputError
from topsieve_sim.golden.descriptor import Descriptor, Flag, encode_descriptor

TINY = load_config("tiny")
TOP = "topsieve_accelerator_tiny"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    folder = tmp_path_factory.mktemp("package")
    return emit_unit("accelerator", TINY, folder, command_line="topsieve verilog accelerator", cases=1)


def simulate(folder, machine: str) -> subprocess.CompletedProcess[str]:
    compiler, simulator = (tool_or_skip(lambda name=name: executable(name)) for name in ("iverilog", "vvp"))
    sources = [machine, f"{TOP}_bench.v", f"{TOP}_tb.v"]
    subprocess.run([compiler, "-g2005", "-s", f"{TOP}_tb", "-o", "bench.vvp", *sources], cwd=folder, check=True)
    return subprocess.run([simulator, "bench.vvp"], cwd=folder, capture_output=True, text=True, check=False)


def test_the_testbench_replays_a_job(package):
    done = simulate(package.folder, f"{TOP}.v")
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("PASS: 1 cases, ")


def test_the_testbench_fails_on_a_planted_error(package):
    text = (package.folder / f"{TOP}.v").read_text()
    # The bytes of a word that are not to be written are.
    wrong, places = re.subn(r"(assign m_axi_w_wstrb = )", r"\1~", text)
    assert places
    (package.folder / "wrong.v").write_text(wrong)
    done = simulate(package.folder, "wrong.v")
    assert done.returncode == 1
    assert "FAIL: " in done.stdout


def test_the_c_driver_is_plain_c(package):
    compiler = tool_or_skip(lambda: executable("g++")).replace("g++", "gcc")
    command = [compiler, "-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic", "-c", "topsieve.c"]
    subprocess.run([*command, "-o", "topsieve.o"], cwd=package.folder, check=True)


def module_of(package) -> ModuleType:
    spec = importlib.util.spec_from_file_location("topsieve_driver", package.folder / "topsieve_driver.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_python_driver_speaks_to_the_registers(package):
    driver = module_of(package)
    registers = RegisterModel(ACCELERATOR_MAP, fixed_fields(TINY))

    def write32(offset: int, word: int) -> None:
        assert registers.write(offset, word, 15) == 0
        if ("control", "start", 1) in registers.pulses:
            registers.event("status", "done", 1)

    device = driver.Accelerator(lambda offset: registers.read(offset)[0], write32)
    device.run(0x1_2345_6780, threshold=77)
    assert registers.stored["descriptor_address_lo", "value"] == 0x2345_6780
    assert registers.stored["descriptor_address_hi", "value"] == 1
    assert registers.stored["progressive_threshold", "value"] == 77
    registers.add("lsb_rows", 1, 5)
    assert device.counters()["lsb_rows"] == 5
    registers.event("status", "error", 3)
    with pytest.raises(driver.AcceleratorError, match="write"):
        device.finished()
    with pytest.raises(driver.AcceleratorError, match="no accelerator"):
        driver.Accelerator(lambda offset: 0, write32)


def test_the_python_driver_packs_descriptors_as_the_machine_reads_them(package):
    packed = module_of(package).descriptor(["last", "prune_tokens"], keys=9, keep_tokens=4, report=1 << 40)
    flags = Flag.LAST | Flag.PRUNE_TOKENS
    assert packed == encode_descriptor(Descriptor(flags=flags, keys=9, group=0, keep_tokens=4, report=1 << 40))


def test_a_machine_without_ports_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"memory.model must be axi"):
        emit_unit("accelerator", load_config("spatten"), tmp_path, command_line="topsieve verilog accelerator")
