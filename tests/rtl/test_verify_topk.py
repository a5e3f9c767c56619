# amaranth: UnusedElaboratable=no
"""The top-k unit as `topsieve verify` and `topsieve verilog` meet it."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from rtl.harness import engine_or_skip, tool_or_skip
from topsieve_rtl.cosim import Engine
from topsieve_rtl.tools import executable
from topsieve_rtl.units import find_unit, unit_names
from topsieve_rtl.verify import verify
from topsieve_rtl.verilog.package import emit_unit
from topsieve_sim.arch import SelectorKind, load_config
from topsieve_sim.errors import InputError
from topsieve_sim.golden.topk import PacketStatus


def config(preset: str, kind: SelectorKind):
    return load_config(preset, [f"topk.selector={kind.value}"])


@pytest.mark.parametrize("kind", SelectorKind)
def test_the_rtl_equals_golden_and_timing(kind):
    result = verify("topk", config("tiny", kind), cases=25, engine=Engine.PYTHON, seed=7)
    assert result.mismatches == 0, result.shown[0].divergence
    assert result.beats > 200


@pytest.mark.full
@pytest.mark.parametrize("kind", SelectorKind)
def test_the_rtl_of_an_fpga_equals_golden_and_timing(kind):
    result = verify("topk", config("ecp5", kind), cases=400, engine=engine_or_skip(Engine.CXXRTL))
    assert result.mismatches == 0, result.shown[0].divergence


def test_another_seed_of_the_pivots_is_caught():
    machine = config("tiny", SelectorKind.QUICK)
    other = load_config("tiny", ["topk.selector=quick", "topk.seed=1234"])

    class Mixed(type(find_unit("topk"))):
        def component(self, config):
            return super().component(other)

    result = verify(Mixed(), machine, cases=40, engine=Engine.PYTHON)
    assert 0 < result.mismatches < 40
    # Pivots move cycles, never results.
    assert all(item.divergence.left.beat == item.divergence.right.beat for item in result.shown)


@pytest.mark.parametrize("preset", ["tiny", "ecp5"])
def test_drawn_cases_hold_every_status_and_every_extreme(preset):
    unit, machine = find_unit("topk"), config(preset, SelectorKind.QUICK)
    statuses, lengths, wanted = set(), set(), set()
    for number in range(150):
        case = unit.draw(machine, np.random.default_rng([0, number]))
        statuses |= {beat[3] for beat in unit.expect(machine, case)["o"].beats if beat[2]}
        length = 0
        for _, count, last, k in case.sources["i"].beats:
            length += count
            if last:
                lengths.add(length)
                wanted.add((k > 0) + (k >= length) + (k > machine.capacity))
                length = 0
    assert statuses == {status.value for status in PacketStatus}
    assert {0, 1, machine.capacity} <= lengths
    assert wanted == {0, 1, 2, 3}


def test_the_emitted_engine_passes_its_own_testbench(tmp_path):
    compiler, simulator = (tool_or_skip(lambda name=name: executable(name)) for name in ("iverilog", "vvp"))
    machine = config("tiny", SelectorKind.RADIX)
    package = emit_unit("topk", machine, tmp_path, command_line="topsieve verilog topk")
    command = [compiler, "-g2005", "-s", f"{package.top}_tb", "-o", "bench.vvp"]
    subprocess.run([*command, f"{package.top}.v", f"{package.top}_tb.v"], cwd=tmp_path, check=True)
    done = subprocess.run([simulator, "bench.vvp"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("PASS: 20 cases, ")


def test_a_machine_that_cannot_be_built_is_one_line():
    tiny = load_config("tiny")
    unchecked = tiny.model_copy(update={"topk": tiny.topk.model_copy(update={"parallelism": 6})})
    with pytest.raises(InputError, match="tiny: the unit topk cannot be built: lanes must be a power of two"):
        verify("topk", unchecked)


def test_the_unit_is_known():
    assert "topk" in unit_names()
