"""What the RTL tests share: engines or a skip that names the missing tool, drawn stalls, comparison with the models."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from topsieve_rtl.cosim import Case, Design, Engine, first_divergence, require_engine, run
from topsieve_rtl.tools import MissingToolError
from topsieve_sim.stepped import SteppedUnit, StreamLog, run_stepped

os.environ.setdefault("TOPSIEVE_BUILD_DIR", str(Path(__file__).parents[3] / "build" / "rtl"))
REQUIRE_TOOLS = "TOPSIEVE_REQUIRE_TOOLS"

ALL_ENGINES = tuple(Engine)


def skip_or_fail(error: MissingToolError) -> None:
    """A missing tool skips the test, or fails it where `TOPSIEVE_REQUIRE_TOOLS=1` promises that every tool is there."""
    if os.environ.get(REQUIRE_TOOLS) == "1":
        pytest.fail(str(error))
    pytest.skip(str(error))


def engine_or_skip(engine: Engine) -> Engine:
    """`engine`, if its tools are installed."""
    try:
        require_engine(engine)
    except MissingToolError as error:
        skip_or_fail(error)
    return engine


def tool_or_skip(look_up: Callable[[], Any]) -> Any:
    """Result of a look-up such as `lambda: executable("yices-smt2")`, or a skip."""
    try:
        return look_up()
    except MissingToolError as error:
        return skip_or_fail(error)


def arrivals(beats: int, spread: int = 4) -> st.SearchStrategy[list[int]]:
    """Ascending arrival cycles of `beats` beats: bursts and gaps of up to `spread` cycles."""

    def ascending(gaps: list[int]) -> list[int]:
        cycles, now = [], 0
        for gap in gaps:
            now += gap
            cycles.append(now)
        return cycles

    return st.lists(st.integers(0, spread), min_size=beats, max_size=beats).map(ascending)


def ready_patterns(max_cycles: int = 80) -> st.SearchStrategy[list[bool]]:
    """When a sink is ready: any pattern, with long stalls likely enough to fill every buffer."""
    runs = st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=max(1, max_cycles // 6))
    return runs.map(lambda pairs: [flag for flag, length in pairs for _ in range(length)][:max_cycles])


@st.composite
def stalled_cases(draw: st.DrawFn, beat: st.SearchStrategy[Any], max_beats: int = 24) -> Case:
    """A case of a unit with one output beat per input beat."""
    beats = draw(st.lists(beat, max_size=max_beats))
    return Case.through(beats, draw(arrivals(len(beats))), draw(ready_patterns()), len(beats), limit_cycles=5000)


def assert_same(model: StreamLog, rtl: StreamLog) -> None:
    """Equal to the cycle and to the bit, or a failure that shows the first divergence."""
    divergence = first_divergence(model, rtl)
    assert divergence is None, f"\n{divergence}"


def compare(
    design: Design, model: Callable[[], SteppedUnit], cases: Sequence[Case], engine: Engine = Engine.PYTHON
) -> None:
    """Run the cases on the RTL and on a fresh stepped model each; assert equal logs."""
    for case, log in zip(cases, run(design, cases, engine), strict=True):
        source, sink = case.sources["i"], case.sinks["o"]
        expected = run_stepped(
            model(), source.beats, source.arrival_cycles, sink.ready_pattern, sink.expected, case.limit_cycles
        )
        assert_same(expected, log.stream_log())
        assert log.finished
