"""Early termination to the bit: bounds hold, no key that matters is dropped, and what is left is exact attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.arch.config import SuccessorConfig
from topsieve_sim.errors import InputError
from topsieve_sim.golden.attention import AttentionOperands, attention, quantise_operands
from topsieve_sim.golden.dot_product import dot_products, scores
from topsieve_sim.golden.early_termination import bound_rows, log2_below, row_bounds, terminated_attention
from topsieve_sim.golden.numbers import ScoreFactor

SPATTEN, TINY = load_config("spatten"), load_config("tiny", ["memory.model=ideal"])


def terminating(config: AcceleratorConfig, threshold: float, tile_keys: int = 0) -> AcceleratorConfig:
    return config.model_copy(
        update={"successor": SuccessorConfig(termination_threshold=threshold, tile_keys=tile_keys)}
    )


@st.composite
def cases(draw: Any) -> tuple[AcceleratorConfig, AttentionOperands]:
    base = draw(st.sampled_from([SPATTEN, TINY]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kv_heads, share = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    keys, head_dim = draw(st.integers(1, 32)), draw(st.sampled_from([1, 3, 8]))
    query, key, value = (
        rng.standard_normal((heads, rows, head_dim)) for heads, rows in
        ((kv_heads * share, 1), (kv_heads, keys), (kv_heads, keys))
    )  # fmt: skip
    peak = draw(st.sampled_from([0.1, 1.0, 6.0, 40.0]))
    order = draw(st.sampled_from(["drawn", "rising", "equal"]))
    if order == "rising":
        key[:] = key[:, :1] * np.linspace(-1, 1, keys)[:, None]
    elif order == "equal":
        key[:] = key[:, :1]
    bias = rng.normal(0, 2, keys) if draw(st.booleans()) else None
    threshold = draw(st.sampled_from([0.5, 0.1, 1 / 64, 1 / 1024, 1e-6]))
    tile = draw(st.sampled_from([0, base.softmax.lanes, 2 * base.softmax.lanes]))
    operands = quantise_operands(query * peak, key, value, base.formats, bias)
    return terminating(base, threshold, tile), operands


def exact_scores(operands: AttentionOperands, config: AcceleratorConfig) -> tuple[Any, Any, Any, Any]:
    """Lower bounds, widths, whole-key scores of the rows of the first head, and its factor."""
    share = operands.query.shape[0] // operands.key.shape[0]
    query = operands.query[:share, 0]
    factor = ScoreFactor(*(np.broadcast_to(part, operands.query.shape[0])[:share] for part in operands.factor))
    low, width = row_bounds(query, operands.key[0], factor, config.formats, operands.bias)
    column = ScoreFactor(factor.multiplier[:, None], factor.shift[:, None])
    exact = scores(dot_products(query, operands.key[0], config.formats), column, config.formats, operands.bias)
    return low, width, exact, factor


@settings(max_examples=120, deadline=None)
@given(case=cases())
def test_scores_lie_between_their_bounds(case: tuple[AcceleratorConfig, AttentionOperands]) -> None:
    config, operands = case
    low, width, exact, _ = exact_scores(operands, config)
    assert (low <= exact).all()
    assert (exact <= low + width[:, None]).all()


@settings(max_examples=200, deadline=None)
@given(case=cases())
def test_no_key_is_dropped_whose_probability_reaches_the_threshold(case) -> None:
    """Against real powers of two of the machine's own exact scores."""
    config, operands = case
    low, width, exact, _ = exact_scores(operands, config)
    candidate, flatness = bound_rows(low, width, config, config.successor.termination_threshold)
    octaves = exact.astype(np.float64) / (1 << config.formats.score_fraction_bits)
    terms = np.exp2(octaves - octaves.max(axis=1, keepdims=True))
    probability = terms / terms.sum(axis=1, keepdims=True)
    assert (candidate | (probability < config.successor.termination_threshold)).all()
    assert candidate.any(axis=1).all()
    # The largest of a row stays whatever the threshold.
    assert candidate[np.arange(len(exact)), exact.argmax(axis=1)].all()
    first = np.exp2((low - low.max(axis=1, keepdims=True)) / (1 << config.formats.score_fraction_bits))
    assert (flatness <= np.log2(first.sum(axis=1)) * (1 << config.formats.score_fraction_bits) + 1e-6 + 1).all()


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_what_is_left_is_exact_attention(case) -> None:
    config, operands = case
    result = terminated_attention(operands, config)
    share = operands.query.shape[0] // operands.key.shape[0]
    mask = np.repeat(result.candidates, share, axis=0)[:, None, :]
    plain = attention(operands, config.formats, config.capacity, valid=mask)
    assert (result.probability == plain.probability).all()
    assert (result.output == plain.output).all()
    assert (result.token_importance == plain.token_importance).all()
    assert (result.head_importance == plain.head_importance).all()


@settings(max_examples=50, deadline=None)
@given(case=cases())
def test_a_bound_over_the_whole_row_drops_all_that_a_tiled_one_drops(case) -> None:
    config, operands = case
    tiled = terminated_attention(operands, config).candidates
    whole_row = terminated_attention(operands, terminating(config, config.successor.termination_threshold)).candidates
    assert (tiled | ~whole_row).all()


@settings(max_examples=50, deadline=None)
@given(case=cases())
def test_a_threshold_that_nothing_stays_under_changes_no_bit(case) -> None:
    config, operands = case
    result = terminated_attention(operands, terminating(config, 1e-12, config.successor.tile_keys))
    plain = attention(operands, config.formats, config.capacity)
    if result.candidates.all():
        assert (result.output == plain.output).all()
    # Keys below 1e-12 of the sum have a probability of zero in any of the machine's formats.
    assert np.abs(result.output - plain.output).max() <= 1


def test_sure_heads_do_without_their_second_plane() -> None:
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal((2, n, 64)) for n in (1, 200, 200))
    key[0, 17] = query[0, 0]  # one head looks at a single key
    operands = quantise_operands(query, key, value, SPATTEN.formats)
    result = terminated_attention(operands, terminating(SPATTEN, 1 / 512), threshold=0.1)
    assert result.whole.tolist() == [False, True]
    assert 1 <= result.candidates[0].sum() < result.candidates[1].sum() < 200


@given(st.integers(1, 2**40), st.integers(1, 12))
def test_the_logarithm_is_a_lower_bound(value: int, bits: int) -> None:
    found = log2_below(value, bits) / (1 << bits)
    assert math.log2(value) - 0.0861 - 2.0**-bits <= found <= math.log2(value) + 1e-12


def test_machines_and_rows_that_do_not_fit_are_refused() -> None:
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal((1, n, 8)) for n in (1, 40, 40))
    with pytest.raises(InputError, match="too long"):
        terminated_attention(quantise_operands(query, key, value, TINY.formats), terminating(TINY, 0.1))
    with pytest.raises(InputError, match="termination_threshold"):
        terminated_attention(quantise_operands(query, key, value, SPATTEN.formats), SPATTEN)
