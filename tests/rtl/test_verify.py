# amaranth: UnusedElaboratable=no
"""`verify` counts what ran and finds what is wrong."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from rtl.harness import ALL_ENGINES, engine_or_skip
from rtl.harness.datapaths import affine
from rtl.harness.pipeline_unit import BITS, PipelineUnit
from topsieve_rtl.cosim import Engine
from topsieve_rtl.verify import verify
from topsieve_sim.arch import load_config
from topsieve_sim.errors import InputError

TINY = load_config("tiny")


@pytest.mark.parametrize("engine", [engine for engine in ALL_ENGINES if engine is not Engine.VERILATOR])
def test_equal_models_have_no_mismatch(engine):
    done = []
    result = verify(
        PipelineUnit(),
        TINY,
        cases=60,
        engine=engine_or_skip(engine),
        progress=lambda now, total: done.append((now, total)),
    )
    assert (result.mismatches, result.shown) == (0, ())
    assert (result.cases, result.config_digest) == (60, TINY.digest)
    assert result.beats > 60
    assert done == [(50, 60), (60, 60)]
    assert str(result).endswith("equal to the bit and to the cycle")


def test_a_unit_says_how_it_is_verified_by_default():
    class Patient(PipelineUnit):
        default_engine = Engine.PYTHON
        default_cases = 8

        def compared(self, config, case):
            return {"jobs": 1, "odd beats": sum(beat % 2 for beat in case.sources["i"].beats)}

    stages, done = [], []
    result = verify(
        Patient(),
        TINY,
        stage=lambda what: nullcontext(stages.append(what)),
        progress=lambda now, total: done.append((now, total)),
    )
    assert (result.engine, result.cases) == (Engine.PYTHON, 8)
    assert stages == ["building topsieve_affine_tiny for python"]
    assert done == [(2, 8), (4, 8), (6, 8), (8, 8)]
    drawn = [Patient().draw(TINY, np.random.default_rng([0, number])) for number in range(8)]
    odd = sum(beat % 2 for case in drawn for beat in case.sources["i"].beats)
    assert result.compared == {"jobs": 8, "odd beats": odd}
    assert f"8 jobs, {odd} odd beats" in str(result)


def test_engines_count_the_same_beats_and_cycles():
    python, cxxrtl = (
        verify(PipelineUnit(), TINY, cases=20, engine=engine_or_skip(engine))
        for engine in (Engine.PYTHON, Engine.CXXRTL)
    )
    assert (python.beats, python.cycles) == (cxxrtl.beats, cxxrtl.cycles)


@pytest.mark.parametrize(
    "wrong",
    [
        PipelineUnit(latency_cycles=4),
        PipelineUnit(function=lambda beat: affine(beat, BITS) ^ (beat == 7)),
    ],
    ids=["latency", "one value"],
)
def test_a_planted_error_is_found_and_can_be_replayed_alone(wrong, tmp_path):
    found = verify(wrong, TINY, cases=400, engine=engine_or_skip(Engine.CXXRTL), waveform=tmp_path / "first.vcd")
    assert found.mismatches > 0
    first = found.shown[0]
    alone = verify(wrong, TINY, cases=1, first_case=first.case, engine=Engine.PYTHON)
    assert alone.shown[0].divergence.left == first.divergence.left
    assert "$enddefinitions" in (tmp_path / "first.vcd").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cases": 0}, "cases: too few cases .got 0.; allowed: >= 1"),
        ({"engine": "vcs"}, "engine: unknown engine"),
        ({"seed": -1}, "seed: negative .got -1.; allowed: >= 0"),
    ],
)
def test_wrong_requests_are_one_line(arguments, message):
    with pytest.raises(InputError, match=message):
        verify(PipelineUnit(), TINY, **arguments)


def test_an_unknown_unit_is_one_line():
    with pytest.raises(InputError, match=r"unknown unit .got 'sorter'"):
        verify("sorter", TINY)
