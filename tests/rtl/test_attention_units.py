# amaranth: UnusedElaboratable=no
"""Every unit of the attention pipeline: RTL against golden models to the bit and timing functions to the cycle."""

from __future__ import annotations

import numpy as np
import pytest

from rtl.harness import engine_or_skip
from rtl.harness.attention_machines import draw_machine
from topsieve_rtl.attention import (
    DotProductArray,
    Softmax,
    WeightedSumArray,
)
from topsieve_rtl.cosim import Case, Design, Engine, first_divergence, run
from topsieve_rtl.formal import combinational_paths
from topsieve_rtl.units import find_unit
from topsieve_rtl.verify import verify
from topsieve_sim.arch import load_config

UNITS = ("dot_product", "softmax", "weighted_sum", "token_importance", "head_importance")
TINY = load_config("tiny")


def assert_equal(unit: str, machine, **arguments) -> int:
    """Verify; the number of beats that were compared."""
    result = verify(unit, machine, **arguments)
    assert result.mismatches == 0, f"{machine.model_dump_json()}\n{result.shown[0].divergence}"
    return result.beats


@pytest.mark.parametrize("unit", UNITS)
def test_drawn_machines_equal_golden_and_timing(unit):
    beats = sum(
        assert_equal(unit, draw_machine(seed), cases=4, engine=Engine.PYTHON, seed=seed) for seed in range(100, 105)
    )
    assert beats > 200


@pytest.mark.full
@pytest.mark.parametrize("unit", UNITS)
def test_many_drawn_machines_equal_golden_and_timing(unit):
    for seed in range(1000, 1120):
        assert_equal(unit, draw_machine(seed), cases=9, engine=Engine.PYTHON, seed=seed)


@pytest.mark.full
@pytest.mark.parametrize(("preset", "cases"), [("tiny", 1000), ("ecp5", 60)])
@pytest.mark.parametrize("unit", UNITS)
def test_many_cases_of_a_preset(unit, preset, cases):
    assert_equal(unit, load_config(preset), cases=cases, engine=engine_or_skip(Engine.CXXRTL))


@pytest.mark.full
@pytest.mark.parametrize("engine", [Engine.ICARUS, Engine.VERILATOR])
@pytest.mark.parametrize("unit", UNITS)
def test_the_shipped_verilog_equals_golden_and_timing(unit, engine):
    assert_equal(unit, TINY, cases=40, engine=engine_or_skip(engine))


def test_reset_clears_the_accumulators():
    """The cases of one simulator run follow each other without a new start: what the last one left must not show."""
    assert_equal("token_importance", TINY, cases=6, engine=engine_or_skip(Engine.ICARUS))


@pytest.mark.parametrize(
    ("unit", "changes", "moves"),
    [
        ("dot_product", {"lane_split": ("dot_product", 8)}, "cycles"),
        ("softmax", {"double_buffer": (None, False)}, "cycles"),
        ("softmax", {"reciprocal_table_bits": ("formats", 4)}, "bits"),
        ("softmax", {"exponential_table_bits": ("formats", 3)}, "bits"),
        ("weighted_sum", {"lane_split": ("weighted_sum", 8)}, "cycles"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_the_rtl_of_another_machine_is_caught(unit, changes, moves):
    """Same ports, one parameter beside: the comparison finds it, and in the right dimension."""
    ((field, (part, value)),) = changes.items()
    path = f"{part}.{field}" if part else field
    other = load_config("tiny", ["memory.model=ideal", f"{path}={value}"])

    class Mixed(type(find_unit(unit))):
        def component(self, config):
            return super().component(other)

    result = verify(Mixed(), TINY, cases=40, engine=Engine.PYTHON)
    assert result.mismatches > 0
    events = [(item.divergence.left, item.divergence.right) for item in result.shown]
    assert any((left and right and left.cycle != right.cycle) is (moves == "cycles") for left, right in events)


def test_a_cycle_too_early_readout_is_caught():
    """A readout that does not wait for the additions before it shows in cycles."""

    class Early(type(find_unit("token_importance"))):
        def latencies(self, config):
            return super().latencies(config)._replace(add=2)

    assert verify(Early(), TINY, cases=10, engine=Engine.PYTHON).mismatches > 0


@pytest.mark.parametrize("machine", [TINY, draw_machine(3), load_config("tiny", ["softmax.lanes=1"])])
@pytest.mark.parametrize("unit", UNITS)
def test_no_port_reaches_another(unit, machine):
    assert combinational_paths(find_unit(unit).component(machine)) == []


@pytest.mark.parametrize("component", [DotProductArray, Softmax, WeightedSumArray])
def test_the_row_number_has_bits(component):
    with pytest.raises(ValueError, match="row_bits must be at least 1, got 0"):
        component(TINY, row_bits=0)


def softmax_case(rows: list[list[int]], threshold: int = 0, second_pass: int = 1) -> Case:
    """Rows without a pause, into a sink that is always ready."""
    lanes = TINY.softmax.lanes
    beats = []
    for row, scores in enumerate(rows):
        for start in range(0, len(scores), lanes):
            part = scores[start : start + lanes]
            last = int(start + lanes >= len(scores))
            beats.append((tuple(part + [0] * (lanes - len(part))), len(part), last, row, second_pass))
    expected = len(beats) if second_pass or not threshold else 0
    return Case.through(beats, [0] * len(beats), [], expected, constants={"threshold": threshold})


@pytest.mark.parametrize(
    "shape",
    [
        lambda n, low, high: [7] * n,
        lambda n, low, high: [low] * n,
        lambda n, low, high: [high] * n,
        lambda n, low, high: [low] * (n - 1) + [high],
        lambda n, low, high: [high] + [low] * (n - 1),
        lambda n, low, high: [high - 3 * i for i in range(n)],
    ],
    ids=["equal", "all lowest", "all highest", "one huge at the end", "one huge at the start", "falling"],
)
def test_softmax_rows_of_every_length(shape):
    unit = find_unit("softmax")
    limit = 1 << (TINY.formats.score_bits - 1)
    case = softmax_case([shape(n, -limit, limit - 1) for n in range(1, TINY.capacity + 1)])
    (log,) = run(unit.design(TINY), [case])
    divergence = first_divergence(unit.expect(TINY, case), log.channels, ("models", "RTL"))
    assert divergence is None, f"\n{divergence}"


def test_rows_of_one_beat_follow_each_other_without_a_gap():
    """The row queues cover the latency of exponentials and reciprocal."""
    case = softmax_case([[5, 3]] * 100)
    (log,) = run(find_unit("softmax").design(TINY), [case])
    for port in ("i", "o"):
        assert np.diff(log.channels[port].cycles).tolist() == [1] * 99


@pytest.mark.parametrize("head_dim", [1, 4, 5, 8])
def test_small_heads_leave_no_multiplier_idle(head_dim):
    """A beat enters in every interval, the multiplications over the multipliers, with a score factor of its own."""
    machine = TINY
    lanes, widest = machine.softmax.lanes, machine.max_head_dim
    words = -(-lanes * (-(-head_dim // 4) * 4) // machine.dot_product.multipliers)
    query = [1] * head_dim + [0] * (widest - head_dim)
    beats = [(query, [query] * lanes, ([0] * lanes, lanes, 1, row, 0), 1 + row, 0) for row in range(30)]
    (log,) = run(
        Design(find_unit("dot_product").component(machine), "array"),
        [Case.through(beats, [0] * 30, [], 30, constants={"words": words})],
    )
    assert np.diff(log.channels["o"].cycles).tolist() == [words] * 29
    assert [beat[0] for beat in log.channels["o"].beats] == [(head_dim * (1 + row),) * lanes for row in range(30)]
