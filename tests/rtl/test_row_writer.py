# amaranth: UnusedElaboratable=no
"""The row writer's RTL: bursts, words and strobes equal to the golden model, the cycle of each to the timing function."""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rtl.harness import engine_or_skip
from rtl.harness.bus_bench import run_bus_bench
from rtl.harness.row_writer_cases import WriterBench, draw_case, machine, strobed
from topsieve_rtl.accelerator.writer import AxiRowWriter, RowWriter
from topsieve_rtl.cosim import Design, Engine, first_divergence, run
from topsieve_rtl.formal import combinational_paths
from topsieve_sim.arch import load_config
from topsieve_sim.golden.row_write import RowWriteShape
from topsieve_sim.timing.row_writer import idle_cycle

# Words wider than a row, a record in part of a word, several words a record; bursts shorter and longer than a row.
MACHINES = {
    "a byte a word": machine(1, 3, 1, head_dim=5, output_bits=11),
    "odd bits": machine(4, 4, 2, head_dim=9, output_bits=13),
    "a record a word": machine(8, 2, 3, head_dim=24),
    "wide words": machine(32, 16, 4, head_dim=40),
}

# A case is a seed, and a smaller seed is no simpler.
UNSHRUNK = [Phase.reuse, Phase.generate]


def check(config, seeds, engine=Engine.PYTHON, **sizes) -> None:
    design = Design(WriterBench(config), "row_writer", {"word": strobed(RowWriteShape.of(config))})
    drawn = [draw_case(config, seed, **sizes) for seed in seeds]
    for case, log in zip(drawn, run(design, [case.case for case in drawn], engine), strict=True):
        divergence = first_divergence(case.expected, log.channels)
        assert divergence is None, f"\n{divergence}"
        assert log.finished
        assert log.status["failed"] == case.failed
        # The run ends in the cycle after the last beat, which is that of the last response.
        assert log.cycles == idle_cycle(case.times)
        assert log.status["idle"] == 1


@pytest.mark.parametrize("config", MACHINES.values(), ids=MACHINES)
@settings(max_examples=5, deadline=None, phases=UNSHRUNK)
@given(st.lists(st.integers(0, 1 << 30), min_size=4, max_size=4))
def test_every_beat_in_the_predicted_cycle(config, seeds):
    check(config, seeds)


@pytest.mark.full
@pytest.mark.parametrize("config", MACHINES.values(), ids=MACHINES)
@settings(max_examples=20, deadline=None, phases=UNSHRUNK)
@given(st.lists(st.integers(0, 1 << 30), min_size=20, max_size=20))
def test_every_beat_in_the_predicted_cycle_at_length(config, seeds):
    check(config, seeds, engine_or_skip(Engine.CXXRTL), rows=60)


@pytest.mark.parametrize("engine", [Engine.ICARUS, pytest.param(Engine.VERILATOR, marks=pytest.mark.full)])
def test_every_engine_agrees(engine):
    check(MACHINES["odd bits"], range(6), engine_or_skip(engine))


@pytest.mark.parametrize("config", MACHINES.values(), ids=MACHINES)
def test_no_port_reaches_another_without_a_register(config):
    assert combinational_paths(RowWriter(config)) == []


def test_a_bus_that_axi_does_not_have_is_refused():
    with pytest.raises(ValueError, match="data_bits must be a power of two from 8 to 1024, got 4096"):
        RowWriter(load_config("spatten"))


def test_rows_and_a_report_reach_an_axi_ram():
    run_bus_bench(AxiRowWriter(MACHINES["odd bits"]), "row_writer", "rtl.harness.row_writer_bench")
