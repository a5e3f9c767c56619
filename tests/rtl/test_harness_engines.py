# amaranth: UnusedElaboratable=no
"""The four engines return the same logs, and those are the stepped models'."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from amaranth import unsigned
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtl.harness import ALL_ENGINES, compare, engine_or_skip, skip_or_fail, stalled_cases
from rtl.harness.datapaths import Affine, affine
from topsieve_rtl.cosim import Case, Design, Engine, Sink, Source, run
from topsieve_rtl.stream import CreditPipeline, Fifo, Storage
from topsieve_rtl.tools import MissingToolError, executable
from topsieve_sim.stepped.pipeline import CreditPipeline as SteppedPipeline

# Wider than a machine word, so that the engines' wide paths are used.
BITS = 70
STAGES, DEPTH, INTERVAL = 3, 5, 2

# A simulator start serves a whole list of cases.
slow_start = settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))


def pipeline() -> tuple[Design, Callable[[], SteppedPipeline]]:
    return (
        Design(CreditPipeline(Affine(BITS, STAGES), DEPTH, INTERVAL, Storage.LUT_RAM), "credit_pipeline"),
        lambda: SteppedPipeline(lambda beat: affine(beat, BITS), STAGES + 1, DEPTH, INTERVAL),
    )


def fifo() -> tuple[Design, Callable[[], SteppedPipeline]]:
    return Design(Fifo(unsigned(BITS), 6, Storage.BLOCK_RAM), "block_ram_fifo"), lambda: SteppedPipeline(
        lambda beat: beat, 1, 6
    )


@pytest.fixture(params=ALL_ENGINES, scope="module")
def engine(request) -> Engine:
    return engine_or_skip(request.param)


# One Verilator build is enough for a fast test.
UNITS = [(engine, unit) for engine in Engine for unit in (pipeline, fifo)]
UNITS = [pytest.param(*pair, marks=pytest.mark.full) if pair == (Engine.VERILATOR, fifo) else pair for pair in UNITS]


@pytest.mark.parametrize(("engine_name", "unit"), UNITS)
def test_every_engine_equals_the_stepped_model(engine_name, unit):
    engine = engine_or_skip(engine_name)
    design, model = unit()

    @slow_start
    @given(cases=st.lists(stalled_cases(st.integers(0, 2**BITS - 1)), min_size=12, max_size=12))
    def check(cases):
        compare(design, model, cases, engine)

    check()


def test_a_deadlock_is_reported_and_not_waited_for(engine):
    design, _ = pipeline()
    case = Case.through([1, 2], [0, 0], [False] * 100, 2, limit_cycles=50)
    (log,) = run(design, [case], engine)
    assert not log.finished
    assert log.cycles == 50
    assert log.channels["i"].cycles == [0, 2]
    assert log.channels["o"].cycles == []


@pytest.mark.parametrize("engine_name", [engine for engine in Engine if engine is not Engine.VERILATOR])
def test_status_is_read_when_nothing_more_is_expected(engine_name):
    # With an idle sink all three beats are inside in cycle 3; after all have left, none is.
    held = Case({"i": Source([7, 8, 9], [0, 0, 0])}, {"o": Sink(0, [False] * 40)})
    free = Case.through([7, 8, 9], [0, 0, 0], [], 3)
    logs = run(fifo()[0], [held, free], engine_or_skip(engine_name))
    assert [(log.cycles, log.status) for log in logs] == [(3, {"level": 3}), (4, {"level": 0})]


def test_a_beat_too_many_is_seen(engine):
    design, _ = pipeline()
    (log,) = run(design, [Case.through([1, 2, 3], [0, 0, 0], [], 1)], engine)
    assert [affine(n, BITS) for n in (1, 2, 3)] == log.channels["o"].beats


def test_a_case_must_name_every_port():
    design, _ = fifo()
    with pytest.raises(ValueError, match="sources"):
        run(design, [Case({}, {"o": Sink(0)})])


def test_a_beat_must_fit_its_port():
    design, _ = fifo()
    with pytest.raises(ValueError, match=r"port i: .* does not fit"):
        run(design, [Case.through([1 << BITS], [0], [], 1)])


def test_a_missing_tool_is_named_with_its_install_command(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingToolError, match="iverilog is not installed; install it with: apt-get install iverilog"):
        executable("iverilog")


@pytest.mark.parametrize(("required", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_a_missing_tool_skips_or_fails(monkeypatch, required, outcome):
    monkeypatch.setenv("TOPSIEVE_REQUIRE_TOOLS", required)
    with pytest.raises(outcome, match="apt-get install"):
        skip_or_fail(MissingToolError("g++"))
