"""The fixed-point softmax: error bound, exactness where exactness is promised, and the early decision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from topsieve_sim.arch import NumberFormats, load_config
from topsieve_sim.golden.progressive import config_threshold, integer_threshold, needs_lsb
from topsieve_sim.golden.softmax import (
    exponential_of,
    largest_probability_of,
    reciprocal_of,
    softmax,
    softmax_parameters,
)
from topsieve_sim.golden.tables import exponential_table, reciprocal_table

FORMATS = NumberFormats()
CAPACITY = 1024
UNIT = softmax_parameters(FORMATS, CAPACITY)
ONE = 1 << FORMATS.probability_bits


def reference(score: NDArray[np.int64]) -> NDArray[np.float64]:
    """Softmax in float64 of the same fixed-point scores, base 2."""
    real = (score - score.max()) / float(1 << FORMATS.score_fraction_bits)
    exponential = np.exp2(real)
    return np.asarray(exponential / exponential.sum())


@st.composite
def rows(draw: Any) -> NDArray[np.int64]:
    n = draw(st.one_of(st.integers(1, 8), st.integers(1, CAPACITY)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0, 1, 50, 256, 2000, 20_000, 32_767]))
    return np.clip(rng.integers(-spread - 1, spread + 1, n) + draw(st.integers(-1000, 1000)), -32_768, 32_767)


@settings(max_examples=200, deadline=None)
@given(rows())
def test_error_is_within_one_probability_step_of_float64(score: NDArray[np.int64]) -> None:
    probability, _ = softmax(score, FORMATS, CAPACITY)
    # One step of the 12-bit probability: half a step of rounding, the tables' relative error of 1.3e-4 of at most 1.0,
    # and the saturation of 1.0 to 1 - 2^-12. The promise to users is 2^-10.
    assert np.abs(probability / ONE - reference(score)).max() <= 1.0 / ONE
    assert probability.min() >= 0
    assert probability.max() < ONE


@st.composite
def real_rows(draw: Any) -> NDArray[np.float64]:
    """Scores before they are rounded, in log2 units; few of them, or all of them half a step from a score of the unit."""
    n = draw(st.one_of(st.integers(1, 4), st.integers(1, CAPACITY)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    real = rng.normal(0, draw(st.sampled_from([0.0, 0.1, 1.0, 8.0])), n)
    if draw(st.booleans()):
        step = 2.0**-FORMATS.score_fraction_bits
        real = (np.rint(real / step) + rng.choice([-0.499, 0.499], n)) * step
    return real


@settings(max_examples=200, deadline=None)
@given(real_rows())
def test_error_is_within_the_promise_with_the_rounding_of_scores(real: NDArray[np.float64]) -> None:
    score = np.rint(real * (1 << FORMATS.score_fraction_bits)).astype(np.int64)
    probability, _ = softmax(score, FORMATS, CAPACITY)
    exact = np.exp2(real - real.max())
    # A probability moves by p (e - mean of e) <= 2 max|e| p (1 - p), with e at most half a step of ln(2) 2^-8: 6.8e-4. With
    # one probability step, 2.4e-4, that is 0.94 of the promise. Exponentials of random rows are rounded up and down alike.
    assert np.abs(probability / ONE - exact / exact.sum()).max() <= 2.0**-10


@pytest.mark.parametrize(("exponential_bits", "keeps"), [(FORMATS.exponential_bits, False), (22, True)])
def test_a_tail_of_equal_small_scores_is_the_worst_row(exponential_bits: int, keeps: bool) -> None:
    """Every exponential but the first is rounded the same way: n - 1 half steps in the sum, which no average takes away."""
    formats = NumberFormats(exponential_bits=exponential_bits)
    worst = 0.0
    for n in (2, 64, CAPACITY):
        half_steps = (n - 1) * 2.0**-exponential_bits
        for distance in range(
            8 << FORMATS.score_fraction_bits, (exponential_bits + 1) << FORMATS.score_fraction_bits, 7
        ):
            score = np.full(n, -distance)
            score[0] = 0
            probability, _ = softmax(score, formats, CAPACITY)
            error = np.abs(probability / ONE - reference(score)).max()
            # The sum is at least one, so its error is at most this, and so is the largest probability's; plus one step.
            assert error <= half_steps + 1.0 / ONE
            worst = max(worst, float(error))
    assert (worst <= 2.0**-10) == keeps
    if not keeps:
        # What the documents say of rows of 1024 keys.
        assert worst == pytest.approx(0.015, rel=0.02)


@settings(max_examples=200, deadline=None)
@given(rows())
def test_the_largest_probability_is_known_from_the_reciprocal(score: NDArray[np.int64]) -> None:
    probability, largest = softmax(score, FORMATS, CAPACITY)
    assert largest == probability.max()


@settings(max_examples=100, deadline=None)
@given(rows(), st.integers(0, 2**32 - 1))
def test_order_of_scores_is_order_of_probabilities_and_shifts_cancel(score: NDArray[np.int64], seed: int) -> None:
    probability, _ = softmax(score, FORMATS, CAPACITY)
    order = np.argsort(score, kind="stable")
    assert (np.diff(probability[order]) >= 0).all()
    moved = score - score.max()
    if moved.min() >= -32_768:
        assert (softmax(moved, FORMATS, CAPACITY)[0] == probability).all()
    permuted = np.random.default_rng(seed).permutation(score.size)
    assert (softmax(score[permuted], FORMATS, CAPACITY)[0] == probability[permuted]).all()


@pytest.mark.parametrize("n", [1, 2, 3, 64, 1000, 1024])
@pytest.mark.parametrize("level", [-32_768, 0, 32_767])
def test_equal_scores_share_equally(n: int, level: int) -> None:
    probability, largest = softmax(np.full(n, level), FORMATS, CAPACITY)
    assert (probability == probability[0]).all()
    assert abs(probability[0] - ONE / n) <= 1
    assert largest == probability[0]


@pytest.mark.parametrize("n", [2, 1024])
def test_one_huge_score_takes_everything(n: int) -> None:
    score = np.full(n, -32_768)
    score[n // 2] = 32_767
    probability, _ = softmax(score, FORMATS, CAPACITY)
    assert probability[n // 2] == ONE - 1
    assert probability.sum() == ONE - 1


@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_masked_keys_take_no_part(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    score = rng.integers(-2000, 2000, (3, n))
    valid = rng.random((3, n)) < 0.6
    valid[:, rng.integers(n)] = True
    probability, largest = softmax(score, FORMATS, CAPACITY, valid)
    for row in range(3):
        alone, its_largest = softmax(score[row, valid[row]], FORMATS, CAPACITY)
        assert (probability[row, valid[row]] == alone).all()
        assert (probability[row, ~valid[row]] == 0).all()
        assert largest[row] == its_largest


def test_every_exponential_is_within_one_step_and_never_rises() -> None:
    one = 1 << (FORMATS.exponential_bits - 1)
    distances = np.arange(0, 20 << FORMATS.score_fraction_bits)
    values = np.array([exponential_of(d, UNIT) for d in distances])
    exact = one * np.exp2(-distances / float(1 << FORMATS.score_fraction_bits))
    # Chord of 32 segments: at most 2^15 * ln(2)^2 / (8 * 32^2) = 1.9 steps above the curve in the first octave; corner
    # and result rounding add at most half a step each.
    chord = np.log(2) ** 2 / 8 / (1 << FORMATS.exponential_table_bits) ** 2 * exact
    assert (np.abs(values - exact) <= chord + 1.0).all()
    assert (np.diff(values) <= 0).all()
    assert values[0] == one
    assert exponential_of(FORMATS.exponential_bits << FORMATS.score_fraction_bits, UNIT) == 0
    assert exponential_of((1 << FORMATS.score_bits) - 1, UNIT) == 0


@given(st.integers(1 << (FORMATS.exponential_bits - 1), CAPACITY << (FORMATS.exponential_bits - 1)))
def test_reciprocal_error_is_that_of_the_chord(row_sum: int) -> None:
    mantissa, exponent = reciprocal_of(row_sum, UNIT)
    assert exponent == row_sum.bit_length()
    real = mantissa / 2.0 ** (FORMATS.reciprocal_bits - 1) / 2.0 ** (exponent - 1)
    # Chord of 64 segments of 1/x on [1, 2): 2 / 8 / 64^2 = 6.1e-5; corners and result round to 2^-15 of 1/2 or more.
    assert abs(real * row_sum - 1) <= 2 / 8 / 64**2 + 2.0**-15 + 2.0**-15


@given(
    exponential_bits=st.integers(6, 24),
    exponential_table_bits=st.integers(1, 8),
    reciprocal_bits=st.integers(11, 24),
    reciprocal_table_bits=st.integers(1, 10),
    probability_bits=st.integers(4, 14),
    capacity=st.integers(2, 4096),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=100, deadline=None)
def test_any_format_decides_early_and_stays_in_range(
    exponential_bits: int,
    exponential_table_bits: int,
    reciprocal_bits: int,
    reciprocal_table_bits: int,
    probability_bits: int,
    capacity: int,
    seed: int,
) -> None:
    formats = NumberFormats(
        exponential_bits=exponential_bits,
        exponential_table_bits=exponential_table_bits,
        reciprocal_bits=reciprocal_bits,
        reciprocal_table_bits=reciprocal_table_bits,
        probability_bits=probability_bits,
    )
    rng = np.random.default_rng(seed)
    score = rng.integers(-32_768, 32_768, min(capacity, 50)) >> rng.integers(0, 15)
    probability, largest = softmax(score, formats, capacity)
    assert largest == probability.max() < 1 << probability_bits
    assert probability.min() >= 0
    assert probability[score.argmax()] == largest


def test_tables_fall_and_are_exact_at_their_ends() -> None:
    for table, first, last in (
        (exponential_table(FORMATS), 1 << 15, 1 << 14),
        (reciprocal_table(FORMATS), 1 << 15, 1 << 14),
    ):
        assert table.base[0] == first
        assert table.base[-1] - table.drop[-1] == last
        assert (table.drop > 0).all()
        assert (np.diff(table.base) == -table.drop[:-1]).all()


def test_threshold_is_rounded_once_and_decides_by_strict_comparison() -> None:
    assert integer_threshold(0.1, FORMATS) == 410
    assert integer_threshold(0.0, FORMATS) == 0
    assert integer_threshold(1.0, FORMATS) == ONE
    assert needs_lsb(np.array([409, 410]), 410).tolist() == [True, False]
    mantissa, exponent = reciprocal_of(1 << (FORMATS.exponential_bits - 1), UNIT)
    assert needs_lsb(np.array(largest_probability_of(mantissa, exponent, UNIT)), ONE)


def test_machines_without_a_plane_never_ask_for_a_second_pass() -> None:
    spatten = load_config("spatten")
    assert config_threshold(spatten) == 410
    assert config_threshold(load_config("spatten", ["progressive.enabled=false"])) == 0
    assert config_threshold(load_config("spatten", ["formats.key_lsb_bits=0"])) == 0
