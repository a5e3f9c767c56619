"""The space of a sweep: what a specification may say, and which points are taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from topsieve.exploration.pareto import pareto_front
from topsieve.exploration.points import Point, machine_at
from topsieve.exploration.sampling import latin_hypercube, places
from topsieve.exploration.spec import SEARCHES, SWEEPS, Axis, Objective, Sampling, load_search, load_sweep
from topsieve.exploration.sweep import Measured
from topsieve.exploration.sweep_files import costs_of
from topsieve.exploration.workloads import QualityMeasure, Run
from topsieve_sim.arch import load_config
from topsieve_sim.errors import InputError

TRACES = {"traces": ["gpt2-small-wikitext2-pruned"]}
MODEL = {"model": "minilm", "methods": ["dense", "spatten"], "keep": [0.5, 0.7]}


def spec_file(tmp_path, **content: Any):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump({"workload": TRACES, **content}))
    return path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"fields": {"softmax.lane": [1]}}, "softmax.lane is no field of an accelerator; known there: lanes"),
        ({"fields": {"softmax": [1]}}, "softmax is a group of fields: lanes"),
        ({"fields": {"softmax.lanes": [8, 8]}}, "fields.softmax.lanes: a value is given twice"),
        ({"fields": {"softmax.lanes": []}}, "fields.softmax.lanes: give a list of values, or low and high"),
        ({"fields": {"softmax.lanes": {"low": 4}}}, "fields.softmax.lanes: low must be below high"),
        ({"fields": {"softmax.lanes": {"low": 4, "high": 8}}}, "softmax.lanes: a grid needs count"),
        ({"fields": {"softmax.lanes": {"low": 0, "high": 8, "scale": "log", "count": 2}}}, "begins above 0"),
        ({"mode": "quick"}, "mode: input should be 'cycle' or 'closed-form' (got 'quick')"),
        ({"speed": 3}, "speed: unknown field; allowed: name, mode"),
        ({"sampling": "latin-hypercube"}, "points: a Latin hypercube needs it"),
        ({"points": 4}, "a grid has none"),
        ({"accelerator": "spatten2"}, "unknown accelerator (got 'spatten2')"),
        ({"seed": -1}, "seed"),
        ({"workload": {}}, "workload: give traces, or a model with methods"),
        ({"workload": {"model": "minilm"}}, "a model needs methods"),
        ({"workload": {**MODEL, "keep": [0.5, 1.5]}}, "shares of tokens are in (0, 1]"),
        ({"workload": {"model": "minilm", "methods": ["spatten"]}}, "the method spatten needs keep"),
        ({"workload": {"model": "minilm", "methods": ["spaten"], "keep": 0.5}}, "unknown method (got 'spaten')"),
        ({"workload": {**TRACES, "keep": 0.5}}, "belong to a model, not to traces"),
    ],
)
def test_a_wrong_specification_is_one_clear_line(tmp_path, content, words):
    with pytest.raises(InputError) as caught:
        load_sweep(spec_file(tmp_path, **content))
    line = str(caught.value)
    assert words in line
    assert "spec.yaml" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"trials": 3}, "nothing to search"),
        ({"trials": 3, "fields": {"softmax.lanes": [8, 16]}, "objectives": ["quality"]}, "quality needs a model"),
        ({"fields": {"softmax.lanes": [8, 16]}}, "trials: required field is missing"),
        ({"trials": 3, "fields": {"softmax.lanes": [8, 16]}, "enqueue": ["nothing"]}, "enqueue"),
        ({"trials": 3, "fields": {"softmax.lanes": [8, 16]}, "objectives": ["latency_us"]}, "objectives"),
    ],
)
def test_a_wrong_search_is_one_clear_line(tmp_path, content, words):
    with pytest.raises(InputError, match=r"spec\.yaml") as caught:
        load_search(spec_file(tmp_path, **content))
    assert words in str(caught.value)


def test_shipped_examples_are_valid():
    assert [load_sweep(name).name for name in SWEEPS.names()] == list(SWEEPS.names())
    assert [load_search(name).name for name in SEARCHES.names()] == list(SEARCHES.names())


def test_a_grid_is_every_combination(tmp_path):
    fields = {"softmax.lanes": [8, 16], "memory.channels": {"low": 1, "high": 16, "scale": "log", "count": 5}}
    spec = load_sweep(spec_file(tmp_path, workload=MODEL, fields=fields))
    found = places(spec)
    # Two keep ratios of spatten; dense takes none and is one point for both.
    assert len(found) == 3 * 2 * 5
    assert {place["memory.channels"] for place in found} == {1, 2, 4, 8, 16}
    assert {(place["method"], place["keep"]) for place in found} == {
        ("dense", None),
        ("spatten", 0.5),
        ("spatten", 0.7),
    }


@given(
    points=st.integers(1, 60),
    seed=st.integers(0, 9),
    low=st.integers(-5, 5),
    width=st.integers(1, 100),
    values=st.integers(1, 7),
)
def test_a_latin_hypercube_meets_every_stratum_once(points, seed, low, width, values):
    axes = {
        "real": Axis(low=float(low), high=float(low + width)),
        "log": Axis(low=0.5, high=32.0, scale="log"),
        "whole": Axis(low=low, high=low + width),
        "list": Axis(values=tuple(range(values))),
    }
    drawn = list(latin_hypercube(axes, points, seed))
    assert len(drawn) == points
    real, log, whole, chosen = zip(*drawn, strict=True)
    strata = sorted(min(int((x - low) / width * points), points - 1) for x in real)
    # A draw on a border between strata may be rounded over it; none is two away.
    assert all(abs(stratum - place) <= 1 for place, stratum in enumerate(strata))
    assert all(0.5 <= x <= 32.0 for x in log)
    assert all(isinstance(x, int) and low <= x <= low + width for x in whole)
    counts = [chosen.count(value) for value in range(values)]
    # Strata of values and of points do not fall together where one does not divide the other: at both ends one may differ.
    assert max(counts) - min(counts) <= 2
    assert drawn == list(latin_hypercube(axes, points, seed))


def test_points_of_a_hypercube_are_drawn_by_the_seed(tmp_path):
    content = {"sampling": "latin-hypercube", "points": 20, "fields": {"clock_mhz": {"low": 100.0, "high": 900.0}}}
    first = places(load_sweep(spec_file(tmp_path, **content)))
    assert load_sweep(spec_file(tmp_path, **content)).sampling is Sampling.LATIN_HYPERCUBE
    assert first == places(load_sweep(spec_file(tmp_path, **content)))
    assert first != places(load_sweep(spec_file(tmp_path, **content, seed=1)))
    assert len(first) == 20


def test_a_place_is_the_base_machine_with_its_fields():
    base = load_config("spatten")
    found = machine_at(base.model_dump(mode="json"), {"trace": "x", "memory.channels": 3, "softmax.lanes": 16})
    assert (found.memory.channels, found.softmax.lanes) == (3, 16)
    assert base.memory.channels == 16
    with pytest.raises(InputError, match=r"design: softmax\.lanes"):
        machine_at(base.model_dump(mode="json"), {"softmax.lanes": 0})
    with pytest.raises(InputError, match="must divide softmax"):
        machine_at(base.model_dump(mode="json"), {"softmax.lanes": 3})


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), max_size=12))
def test_the_front_is_what_no_other_beats(costs):
    front = pareto_front(costs)
    for place, cost in enumerate(costs):
        beaten = any(all(a <= b for a, b in zip(other, cost, strict=True)) and other != cost for other in costs)
        assert (place in front) == (not beaten)


@pytest.mark.parametrize(("lower", "best"), [(False, 2.0), (True, 1.0)])
def test_quality_costs_what_its_measure_calls_worse(lower, best):
    """Of a cosine more is better, of a perplexity less."""

    def measured(quality: float) -> Measured:
        run = Run("", Path("trace.npz"), {"measure": quality})
        return Measured(Point(0, {}, load_config("tiny"), run, ""), {})

    costs = {
        quality: costs_of(measured(quality), [Objective.QUALITY], [QualityMeasure("measure", lower)])
        for quality in (1.0, 2.0)
    }
    assert min(costs, key=costs.__getitem__) == best
