"""What is written from the register table: the C header, the page and the counters' names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rtl.harness import tool_or_skip
from topsieve_rtl.csr import (
    ACCELERATOR_MAP,
    Access,
    Field,
    Register,
    RegisterMap,
    c_header,
    fixed_fields,
    markdown,
    report_counters,
)
from topsieve_rtl.tools import executable
from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate
from topsieve_sim.trace import Trace
from topsieve_sim.trace.ops import ProbabilityValue, QueryKey, Softmax

ROOT = Path(__file__).parents[2]


def test_the_written_files_are_those_of_the_table(tmp_path):
    """Both files in the repository are what one command writes, and writing again changes no byte."""
    page, header = tmp_path / "registers.md", tmp_path / "registers.h"
    subprocess.run([sys.executable, "-m", "topsieve_rtl.csr", str(page), str(header)], check=True)
    assert page.read_text() == markdown(ACCELERATOR_MAP) == (ROOT / "docs" / "registers.md").read_text()
    shipped = ROOT / "rtl" / "topsieve_rtl" / "csr" / "topsieve_registers.h"
    assert header.read_text() == c_header(ACCELERATOR_MAP) == shipped.read_text()


def test_the_c_header_compiles_and_says_what_the_table_says(tmp_path):
    gcc = tool_or_skip(lambda: executable("g++")).replace("g++", "gcc")
    expected = {}
    for register in ACCELERATOR_MAP.registers:
        expected[f"TOPSIEVE_{register.name.upper()}"] = register.offset
        for field in register.fields:
            name = f"TOPSIEVE_{register.name}_{field.name}".upper()
            expected[f"{name}_LSB"] = field.lowest_bit
            expected[f"{name}_MASK"] = field.mask
    expected |= {f"TOPSIEVE_{counter.name.upper()}": counter.offset for counter in ACCELERATOR_MAP.counters}
    prints = "\n".join(f'    printf("{name} %lu\\n", (unsigned long){name});' for name in expected)
    (tmp_path / "registers.h").write_text(c_header(ACCELERATOR_MAP))
    (tmp_path / "main.c").write_text(
        f'#include "registers.h"\n#include "registers.h"\n#include <stdio.h>\nint main(void) {{\n{prints}\n    return 0;\n}}\n'
    )
    subprocess.run([gcc, "-std=c99", "-Wall", "-Wextra", "-Werror", "-o", "main", "main.c"], cwd=tmp_path, check=True)
    printed = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout
    assert {name: int(value) for name, value in map(str.split, printed.splitlines())} == expected
    assert len(expected) == len(printed.splitlines())


def test_counters_are_named_after_the_report():
    """Every cycle and byte count of a report has a counter, and no counter is without one."""
    shape = {"layer": 0, "heads": 2, "kv_heads": 2, "queries": 3, "keys": 20, "head_dim": 8}
    ops = (
        QueryKey(**shape, key_msb_bits=6, key_lsb_bits=2, threshold=0.1, lsb_rows=2),
        Softmax(layer=0, heads=2, rows=3, cols=20),
        ProbabilityValue(**shape, kept=20),
    )
    report = simulate(Trace(ops, model="drawn", method="by hand"), load_config("tiny"))
    counts = report_counters(report)
    assert sorted(counts) == sorted(counter.name for counter in ACCELERATOR_MAP.counters)
    assert counts["cycles"] == report.cycles > 0
    assert sum(count for name, count in counts.items() if name.startswith("dram_bytes_")) == report.dram_bytes_total
    in_units = sum(count for name, count in counts.items() if name.endswith("_cycles"))
    assert in_units == report.cycles * len(report.units)


@pytest.mark.parametrize("preset", ["tiny", "ecp5", "spatten"])
def test_the_digest_and_the_sizes_are_those_of_the_configuration(preset):
    config = load_config(preset)
    fixed = fixed_fields(config)
    digest = fixed["config_digest_hi", "value"] << 32 | fixed["config_digest_lo", "value"]
    assert f"{digest:016x}" == config.digest
    for (register, name), value in fixed.items():
        assert 0 <= value < 1 << ACCELERATOR_MAP.register(register).field(name).bits
    assert fixed["capability_sizes", "capacity"] == config.capacity


def field(
    name: str = "a", bits: int = 8, lowest_bit: int = 0, access: Access = Access.READ_WRITE, reset: int = 0
) -> Field:
    return Field(name, bits, access, "A field.", lowest_bit, reset)


@pytest.mark.parametrize(
    ("registers", "message"),
    [
        ([Register("r", 0, "", (field(),)), Register("r", 4, "", ())], "two registers are named r"),
        ([Register("r", 2, "", ())], "r: offset must be a multiple of 4, got 2"),
        ([Register("r", 4, "", ()), Register("s", 4, "", ())], "s and r share offset 0x4"),
        ([Register("r", 0, "", (field(lowest_bit=25),))], "r.a does not fit 32 bits"),
        ([Register("r", 0, "", (field(), field("b", lowest_bit=7)))], "r.b overlaps another field"),
        ([Register("r", 0, "", (field(reset=256),))], "r.a: reset 256 is not possible"),
        ([Register("r", 0, "", (field(access=Access.PULSE, reset=1),))], "r.a: reset 1 is not possible"),
    ],
)
def test_a_table_that_cannot_be_is_refused(registers, message):
    with pytest.raises(ValueError, match=message):
        RegisterMap("m", tuple(registers), ())
