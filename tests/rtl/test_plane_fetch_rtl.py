"""The plane fetcher's RTL: bursts and beats equal to the golden model, the cycle of each to the timing function."""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rtl.harness import engine_or_skip
from rtl.harness.bus_bench import run_bus_bench
from rtl.harness.plane_fetch_shape import SHAPE
from sim.plane_fetch_cases import FetchCase, cases, shapes
from topsieve_rtl.cosim import Case, Channel, Design, Engine, Sink, Source, first_divergence, run
from topsieve_rtl.formal import combinational_paths
from topsieve_rtl.memory import AxiPlaneFetcher, PlaneFetcher
from topsieve_rtl.units.plane_fetcher import valid_lanes
from topsieve_sim.golden.plane_fetch import PlaneFetchShape


def design(shape: PlaneFetchShape) -> Design:
    return Design(PlaneFetcher(shape), "plane_fetcher", {"o": valid_lanes})


def words(case: FetchCase) -> list[tuple[int, int, int]]:
    """What the memory answers, word by word."""
    size = case.shape.data_bytes
    return [
        (*case.memory(burst.address + n * size), int(n + 1 == burst.words))
        for burst in case.plan.bursts
        for n in range(burst.words)
    ]


def stimulus(case: FetchCase) -> Case:
    """The memory answers in the cycles in which the models say that it does, from the addresses that they predict."""
    return Case(
        {
            "command": Source(case.commands, case.command_arrivals),
            "index": Source(case.indices, case.index_arrivals),
            "data": Source(words(case), case.times.data.tolist()),
        },
        {
            "address": Sink(len(case.plan.bursts), case.address_ready),
            "o": Sink(len(case.beats), case.ready),
        },
        limit_cycles=100_000,
    )


def predicted(case: FetchCase) -> dict[str, Channel]:
    times = case.times
    return {
        "command": Channel(times.command.tolist(), list(case.commands)),
        "index": Channel(times.indices.tolist(), list(case.indices)),
        "data": Channel(times.data.tolist(), words(case)),
        "address": Channel(times.address.tolist(), [(burst.address, burst.words - 1) for burst in case.plan.bursts]),
        "o": Channel(times.left.tolist(), case.beats),
    }


def check(shape: PlaneFetchShape, drawn: list[FetchCase], engine: Engine = Engine.PYTHON) -> None:
    for case, log in zip(drawn, run(design(shape), [stimulus(case) for case in drawn], engine), strict=True):
        divergence = first_divergence(predicted(case), log.channels)
        assert divergence is None, f"\n{divergence}"
        assert log.finished


@settings(max_examples=16, deadline=None)
@given(st.data())
def test_every_beat_in_the_predicted_cycle(data):
    shape = data.draw(shapes())
    check(shape, data.draw(st.lists(cases(shape, max_commands=3, max_rows=7), min_size=6, max_size=6)))


@pytest.mark.full
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_beat_in_the_predicted_cycle_at_length(data):
    shape = data.draw(shapes())
    drawn = data.draw(st.lists(cases(shape, max_rows=20), min_size=20, max_size=20))
    check(shape, drawn, engine_or_skip(Engine.CXXRTL))


SMALL = PlaneFetchShape(
    4, (6, 4, 12), 32, stride_bits=12, max_rows=20, max_burst_words=4, buffer_words=8, merge_bytes=64
)


@pytest.mark.parametrize(
    "engine", [Engine.CXXRTL, Engine.ICARUS, pytest.param(Engine.VERILATOR, marks=pytest.mark.full)]
)
@settings(max_examples=1, deadline=None, phases=[Phase.generate])
@given(st.data())
def test_every_engine_agrees(engine, data):
    check(SMALL, data.draw(st.lists(cases(SMALL), min_size=6, max_size=6)), engine_or_skip(engine))


@pytest.mark.parametrize("merge_bytes", [0, 64])
def test_no_port_reaches_another_without_a_register(merge_bytes):
    unit = PlaneFetchShape(2, (6, 4), 16, max_burst_words=2, buffer_words=4, merge_bytes=merge_bytes)
    assert combinational_paths(PlaneFetcher(unit)) == []


def test_rows_come_from_an_axi_ram():
    run_bus_bench(AxiPlaneFetcher(SHAPE), "plane_fetcher", "rtl.harness.plane_fetch_bench")
