"""The pictures' arithmetic: percentages that sum, means that conserve, points on their side of the roofs."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topsieve.explain import (
    ACTIVITIES,
    BUSY,
    PICTURE_POINTS,
    layer_points,
    mean_over_points,
    peaks,
    percentages,
    run_point,
    stall_shares,
)
from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate
from topsieve_sim.report import Report, Stall
from topsieve_sim.validation.benchmarks import pruned_bert_trace
from topsieve_sim.validation.workloads import Encoder


@pytest.fixture(scope="module")
def report() -> Report:
    return simulate(pruned_bert_trace(Encoder(6, 4), 40), load_config("spatten"))


@given(counts=st.lists(st.integers(0, 10**9), min_size=1, max_size=9).filter(any))
def test_percentages_sum_to_a_hundred_and_stay_near(counts) -> None:
    whole = sum(counts)
    shares = {str(index): count / whole for index, count in enumerate(counts)}
    found = percentages(shares)
    assert round(sum(found.values()), 6) == 100.0
    assert all(abs(found[key] - 100 * share) < 0.1 + 1e-6 for key, share in shares.items())


@given(
    steps=st.lists(st.tuples(st.integers(1, 50), st.floats(0, 9)), min_size=1, max_size=60),
    points=st.integers(1, 40),
    tail=st.integers(1, 30),
)
def test_means_conserve_the_area(steps, points, tail) -> None:
    cycles = tuple(itertools.accumulate(length for length, _ in steps))
    values = tuple(level for _, level in steps)
    end = cycles[-1] + tail
    borders, means = mean_over_points(cycles, values, end, points)
    assert len(borders) == len(means) <= points
    wanted = sum(level * (after - now) for now, after, level in zip(cycles, (*cycles[1:], end), values, strict=True))
    area = sum(mean * (after - now) for now, after, mean in zip(borders, (*borders[1:], end), means, strict=True))
    assert area == pytest.approx(wanted, abs=1e-6)
    assert max(means) <= max(values) + 1e-9


def test_every_cycle_has_one_activity(report: Report) -> None:
    for row in report.units:
        shares = stall_shares(report)[row.unit]
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-12)
        assert shares[BUSY] * report.cycles == pytest.approx(row.busy_cycles)
    assert set(ACTIVITIES) == {BUSY, *Stall}


def test_activities_differ_in_colour_and_neighbours_in_more(report: Report) -> None:
    colours = [colour for colour, _, _ in ACTIVITIES.values()]
    assert len(set(colours)) == len(colours)
    waits = [ACTIVITIES[cause][1] for cause in (Stall.INPUT, Stall.MEMORY, Stall.DOWNSTREAM)]
    assert len(set(waits)) == 3
    assert "" not in waits


def test_points_lie_under_the_roofs_and_layers_share_the_work(report: Report) -> None:
    compute, bandwidth = peaks(report)
    whole = run_point("run", report)
    assert whole.tflops == report.attention_tflops <= min(compute, bandwidth * whole.flops_per_byte)
    layers = layer_points(report)
    assert [point.name for point in layers] == [str(layer) for layer in range(6)]
    flops = sum(
        point.tflops * 1e6 * report.accelerator.microseconds(row.cycles)
        for point, row in zip(layers, report.layers, strict=True)
    )
    assert flops == pytest.approx(report.attention_flops)
    assert all(point.tflops <= compute for point in layers)
    assert PICTURE_POINTS > 100
