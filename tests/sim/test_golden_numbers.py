"""Rounding, saturation, planes and score factors obey their definitions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topsieve_sim.arch import NumberFormats
from topsieve_sim.errors import InputError
from topsieve_sim.golden.numbers import (
    exact_matmul,
    join_planes,
    msb_only,
    quantise,
    round_half_up_shift,
    saturate_signed,
    saturate_unsigned,
    score_factor,
    split_planes,
    symmetric_scale,
)

FORMATS = NumberFormats()


@given(st.integers(-(2**45), 2**45), st.integers(0, 50))
def test_round_half_up_shift_is_the_floor_of_the_quotient_plus_one_half(value: int, shift: int) -> None:
    exact = Fraction(value, 1 << shift) + Fraction(1, 2)
    assert round_half_up_shift(value, shift) == exact.__floor__()
    assert round_half_up_shift(np.array([value]), np.array([shift]))[0] == exact.__floor__()


@given(st.integers(-(2**30), 2**30), st.integers(2, 24))
def test_saturation_is_the_nearest_representable_integer(value: int, bits: int) -> None:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    assert saturate_signed(np.array(value), bits) == min(max(value, low), high)
    assert saturate_unsigned(np.array(value), bits) == min(max(value, 0), (1 << bits) - 1)


@given(st.integers(-(2**15) + 1, 2**15 - 1), st.integers(0, 8))
def test_planes_join_to_the_key_and_the_msb_plane_alone_is_never_above_it(key: int, lsb_bits: int) -> None:
    whole = np.array([key])
    msb, lsb = split_planes(whole, lsb_bits)
    assert join_planes(msb, lsb, lsb_bits) == whole
    assert 0 <= lsb[0] < 1 << lsb_bits
    assert 0 <= key - int(msb_only(whole, lsb_bits)[0]) < 1 << lsb_bits


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.integers(2, 16))
def test_quantisation_is_within_half_a_step_and_symmetric(values: list[float], bits: int) -> None:
    scale = symmetric_scale(values, bits)
    steps = quantise(values, scale, bits)
    assert np.abs(steps).max() <= (1 << (bits - 1)) - 1
    # Half a step, and the rounding of the float64 division itself.
    assert (np.abs(steps * scale - np.array(values)) <= scale * (0.5 + 1e-9)).all()
    assert (quantise(-np.array(values), scale, bits) == -steps).all()


def test_quantisation_rounds_halves_to_even_and_saturates() -> None:
    assert quantise([0.5, 1.5, 2.5, -0.5, -1.5, 900.0, -900.0], 1.0, 8).tolist() == [0, 2, 2, 0, -2, 127, -127]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_quantisation_refuses_what_is_not_finite(value: float) -> None:
    with pytest.raises(InputError, match="not finite"):
        quantise([1.0, value], 1.0, 8)


@given(st.floats(1e-6, 1e3), st.floats(1e-6, 1.0), st.integers(1, 512))
def test_score_factor_has_sixteen_significant_bits(query_scale: float, key_scale: float, head_dim: int) -> None:
    real = query_scale * key_scale / np.sqrt(head_dim) / np.log(2.0) * 2.0**FORMATS.score_fraction_bits
    if real >= 2**16:
        return
    factor = score_factor(query_scale, key_scale, head_dim, FORMATS)
    assert 0 <= factor.shift <= 63
    assert 0 <= factor.multiplier < 1 << 16
    error = abs(float(factor.multiplier) * 2.0 ** -float(factor.shift) - real)
    # Half a unit of the multiplier: relative 2^-16 when normalised, absolute 2^-64 at the largest shift.
    assert error <= max(real * 2.0**-16, 2.0**-64) * (1 + 1e-9)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), 1e9])
def test_score_factor_refuses_what_does_not_fit(scale: float) -> None:
    with pytest.raises(InputError):
        score_factor(scale, 1.0, 64, FORMATS)


@pytest.mark.parametrize("shape", [(3, 4, 65, 5), (2, 300, 64, 512)])
def test_exact_matmul_equals_integer_arithmetic(shape: tuple[int, int, int, int]) -> None:
    batch, rows, inner, columns = shape
    rng = np.random.default_rng(0)
    a = rng.integers(-(2**11), 2**11, (batch, rows, inner))
    b = rng.integers(-(2**11), 2**11, (batch, inner, columns))
    exact = np.einsum("brk,bkc->brc", a, b)
    assert (exact_matmul(a, b, 30) == exact).all()
    assert (exact_matmul(a, b, 60) == exact).all()
