"""Schedules against the published ones."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from software.toy_encoder import SHAPE
from topsieve.methods import build
from topsieve.reduction import Base, Budget, ModelShape, Schedule, Site
from topsieve.reduction.schedules import GeometricRamp, LinearRamp, ListedLayers, MergeRamp, StepwiseRamp, ThresholdRamp

BUDGET = Budget(ratio=1, base=Base.INITIAL)


def depth(layers: int) -> ModelShape:
    return replace(SHAPE, layers=layers)


def counts(schedule: Schedule, layers: int, tokens: int) -> dict[int, int]:
    """Tokens left after each layer that has a step."""
    current, left = tokens, {}
    for step in schedule.plan(depth(layers)):
        current = step.budget.keep_count(current, tokens)
        left[step.layer] = current
    return left


def test_stepwise_ramp_is_the_trace_of_gpt2_medium() -> None:
    """Keys of each layer of the WikiText-2 trace: specification `accelerator`, section 1.6."""
    (stage,) = build("spatten:schedule=stepwise,keep=0.3").stages(depth(24))
    left = counts(stage.schedule, 24, 1024)
    keys = [1024] + [left.get(layer, min(left.values())) for layer in range(23)]
    assert keys == [1024] * 2 + [921] + [819] * 2 + [614] * 6 + [307] * 13


def test_linear_ramp_leaves_the_first_layers_whole() -> None:
    """Twelve layers: the first ceil(0.15 x 12) = 2 are whole, the others fall evenly to the half."""
    (stage,) = build("spatten:keep=0.5").stages(depth(12))
    left = counts(stage.schedule, 12, 100)
    assert list(left.values()) == [100, 100, 95, 90, 85, 80, 75, 70, 65, 60, 55, 50]


def test_linear_ramp_between_two_shares_has_their_mean() -> None:
    """r_start + r_end = 2 r_avg: specification `accelerator`, section 1.1."""
    schedule = LinearRamp(Site.MID_LAYER, 0.4, BUDGET, start=0.8)
    shares = [step.budget.ratio for step in schedule.plan(depth(12))]
    assert float(shares[0] or 0) == 0.8
    assert float(shares[-1] or 0) == 0.4
    assert sum(float(share or 0) for share in shares) / len(shares) == pytest.approx(0.6, abs=1e-15)


def test_head_ramp_reaches_the_last_layer() -> None:
    """First 30 % of the layers whole; what the last layer could decide would reach none."""
    (_, stage) = build("spatten:head_keep=0.5").stages(depth(10))
    left = counts(stage.schedule, 10, 12)
    assert max(left) == 8
    assert [left[layer] for layer in range(3)] == [12, 12, 12]
    assert left[8] == 6


@given(layers=st.integers(1, 30), tokens=st.integers(1, 600), keep=st.sampled_from([0.1, 0.33, 0.5, 0.9, 1.0]))
def test_every_ramp_ends_at_its_share_and_never_rises(layers: int, tokens: int, keep: float) -> None:
    for schedule in (
        LinearRamp(Site.MID_LAYER, keep, BUDGET, every_layer=True),
        StepwiseRamp(Site.MID_LAYER, keep, BUDGET, every_layer=True),
        GeometricRamp(Site.MID_LAYER, keep, BUDGET),
        MergeRamp(Site.MID_LAYER, BUDGET, keep=keep, inflect=0.5),
    ):
        left = list(counts(schedule, layers, tokens).values())
        assert left == sorted(left, reverse=True)
        assert left[-1] == max(1, math.floor(round(keep * tokens, 9)))
        layers_of = [step.layer for step in schedule.plan(depth(layers))]
        assert layers_of == sorted(set(layers_of))
        assert set(layers_of) <= set(range(layers))


def test_merge_ramp_removes_the_same_in_every_layer() -> None:
    left = [24, *counts(MergeRamp(Site.MID_LAYER, BUDGET, keep=0.5), 6, 24).values()]
    assert [before - after for before, after in pairwise(left)] == [2] * 6


def test_threshold_ramp_starts_at_its_floor() -> None:
    steps = ThresholdRamp(Site.MID_LAYER, 0.012, Budget(threshold=0), floor=1e-5).plan(depth(12))
    assert [step.budget.threshold for step in steps] == pytest.approx(
        [1e-5] + [0.001 * layer for layer in range(1, 12)]
    )


def test_listed_layers_skip_what_the_model_does_not_have() -> None:
    schedule = ListedLayers(Site.LAYER, ((1, Budget(count=5)), (9, Budget(count=3))))
    assert [(step.site, step.layer) for step in schedule.plan(depth(4))] == [(Site.LAYER, 1)]


def test_no_layers_no_steps() -> None:
    assert LinearRamp(Site.HEAD, 0.5, BUDGET, skip_last=1).plan(depth(1)) == ()
