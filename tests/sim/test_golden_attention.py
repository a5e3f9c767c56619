"""The whole attention unit's golden model against float64 attention and against its own units row by row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from topsieve_sim.arch import NumberFormats, load_config
from topsieve_sim.errors import InputError
from topsieve_sim.golden.attention import (
    AttentionOperands,
    attention,
    flush_cycles,
    kept_mask,
    machine_attention,
    quantise_operands,
)
from topsieve_sim.golden.dot_product import dot_products, scores
from topsieve_sim.golden.importance import add_head_importance, add_token_importance
from topsieve_sim.golden.numbers import ScoreFactor, msb_only
from topsieve_sim.golden.progressive import integer_threshold
from topsieve_sim.golden.softmax import softmax
from topsieve_sim.golden.topk import threshold_of, top_k
from topsieve_sim.timing.topk import row_survivors

FORMATS = NumberFormats()
CAPACITY = 1024
Real = NDArray[np.float64]


def float_attention(query: Real, key: Real, value: Real) -> tuple[Real, Real]:
    score = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
    exponential = np.exp(score - score.max(axis=-1, keepdims=True))
    probability = exponential / exponential.sum(axis=-1, keepdims=True)
    return probability, probability @ value


def operands(
    seed: int, heads: int = 2, queries: int = 5, keys: int = 9, d: int = 8, gain: float = 1.0
) -> tuple[Real, Real, Real]:
    rng = np.random.default_rng(seed)
    query, key = rng.standard_normal((heads, queries, d)) * gain, rng.standard_normal((heads, keys, d))
    return query, key, rng.standard_normal((heads, keys, d))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([4, 32, 64]), st.sampled_from([0.2, 1.0, 3.0]))
def test_whole_keys_are_close_to_float64(seed: int, keys: int, d: int, gain: float) -> None:
    query, key, value = operands(seed, keys=keys, d=d, gain=gain)
    integer = quantise_operands(query, key, value, FORMATS)
    result = attention(integer, FORMATS, CAPACITY)
    probability, output = float_attention(query, key, value)
    # Operand steps perturb a score by at most e = |q|_1 step_k / 2 + |k|_1 step_q / 2 (over sqrt(d)) plus half a score
    # step; a probability then moves by at most e / 2, plus one step of its own.
    q_step, k_step = (np.abs(x).max(axis=(1, 2)) / (2.0**11 - 1) for x in (query, key))
    score_error = (np.abs(query).sum(-1).max(-1) * k_step + np.abs(key).sum(-1).max(-1) * q_step) / 2 / np.sqrt(
        d
    ) + 2.0**-9 * np.log(2)
    error = np.abs(result.probability / 2.0**FORMATS.probability_bits - probability).max(axis=(1, 2))
    assert (error <= score_error / 2 * 1.01 + 2.0**-12).all()
    real_output = result.output * integer.value_scale[:, None, None]
    bound = error * np.abs(value).sum(axis=1).max(axis=-1) + integer.value_scale
    assert (np.abs(real_output - output).max(axis=(1, 2)) <= bound).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 30), st.floats(0.0, 1.0), st.integers(1, 30), st.sampled_from([0.3, 2.0])
)
def test_equals_its_units_row_by_row(seed: int, keys: int, threshold: float, kept: int, gain: float) -> None:
    integer = quantise_operands(*operands(seed, keys=keys, gain=gain), FORMATS)
    limit = integer_threshold(threshold, FORMATS)
    result = attention(integer, FORMATS, CAPACITY, limit, kept)
    for head in range(2):
        factor = ScoreFactor(integer.factor.multiplier[head], integer.factor.shift[head])
        for row in range(5):
            query = integer.query[head, row : row + 1]
            seen = integer.key[head] if limit == 0 else msb_only(integer.key[head], FORMATS.key_lsb_bits)
            probability, largest = softmax(
                scores(dot_products(query, seen, FORMATS), factor, FORMATS), FORMATS, CAPACITY
            )
            again = int(largest[0]) < limit
            assert result.lsb_rows[head, row] == again
            if again:
                whole = scores(dot_products(query, integer.key[head], FORMATS), factor, FORMATS)
                probability, _ = softmax(whole, FORMATS, CAPACITY)
            assert (result.probability[head, row] == probability[0]).all()
            survivors = top_k(probability[0], kept)
            total = probability[0][survivors] @ integer.value[head][survivors]
            assert (result.output[head, row] == (total + (1 << 11)) >> 12).all()
    nothing = np.zeros(keys, np.int64)
    assert (add_token_importance(nothing, result.probability, FORMATS) == result.token_importance).all()
    assert (add_head_importance(np.zeros(2, np.int64), result.output, FORMATS) == result.head_importance).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 45), st.sampled_from([2, 50, 4096]))
def test_local_selection_is_top_k_of_every_row(seed: int, keys: int, kept: int, top: int) -> None:
    probability = np.random.default_rng(seed).integers(0, top, (3, keys))
    mask = kept_mask(probability, kept)
    for row in range(3):
        assert np.flatnonzero(mask[row]).tolist() == top_k(probability[row], kept).tolist()


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([2, 4, 8]), st.sampled_from([2, 50]))
def test_flush_is_what_the_packer_is_left_with(seed: int, kept: int, parallelism: int, top: int) -> None:
    rng = np.random.default_rng(seed)
    row_keys = rng.integers(1, 40, 4)
    row_scores = [rng.integers(0, top, n) for n in row_keys]
    flush = flush_cycles(np.concatenate(row_scores), row_keys, kept, parallelism)
    for row, score in enumerate(row_scores):
        counts = row_survivors(score, *threshold_of(score, kept), parallelism)
        waiting = 0
        for count in counts[:-1]:
            waiting += count
            waiting -= parallelism if waiting > parallelism else 0
        assert flush[row] == int(waiting + counts[-1] > parallelism)


def test_a_causal_row_sees_its_prefix_only() -> None:
    integer = quantise_operands(*operands(3, queries=9), FORMATS)
    mask = np.tril(np.ones((9, 9), np.bool_))
    result = attention(integer, FORMATS, CAPACITY, 400, valid=mask)
    for row in range(9):
        prefix = AttentionOperands(
            query=integer.query[:, row : row + 1],
            key=integer.key[:, : row + 1],
            value=integer.value[:, : row + 1],
            factor=integer.factor,
            bias=None,
            value_scale=integer.value_scale,
        )
        alone = attention(prefix, FORMATS, CAPACITY, 400)
        assert (result.probability[:, row, : row + 1] == alone.probability[:, 0]).all()
        assert (result.probability[:, row, row + 1 :] == 0).all()
        assert (result.output[:, row] == alone.output[:, 0]).all()


def test_query_heads_share_their_key_value_head() -> None:
    query, key, value = operands(5, heads=4)
    shared = attention(quantise_operands(query, key[:2], value[:2], FORMATS), FORMATS, CAPACITY, 300)
    repeated = attention(
        quantise_operands(query, key[:2].repeat(2, axis=0), value[:2].repeat(2, axis=0), FORMATS),
        FORMATS,
        CAPACITY,
        300,
    )
    assert (shared.output == repeated.output).all()


def test_a_bias_of_minus_infinity_hides_a_key() -> None:
    query, key, value = operands(7)
    bias = np.zeros(9)
    bias[4] = -np.inf
    result = attention(quantise_operands(query, key, value, FORMATS, bias), FORMATS, CAPACITY)
    assert (result.probability[..., 4] == 0).all()
    assert result.probability[..., :4].sum() > 0


def test_whole_keys_are_closer_than_msb_planes_alone() -> None:
    query, key, value = operands(11, heads=4, queries=32, keys=64, d=32)
    integer = quantise_operands(query, key, value, FORMATS)
    probability, _ = float_attention(query, key, value)

    def error(threshold: int) -> float:
        found = attention(integer, FORMATS, CAPACITY, threshold).probability / 4096
        return float(np.linalg.norm(found - probability) / np.linalg.norm(probability))

    # A threshold of one step is never met from below, so every row keeps its first pass.
    assert error(0) < error(integer_threshold(0.1, FORMATS)) < error(1)
    assert error(1 << FORMATS.probability_bits) == error(0)


def test_bad_operands_are_refused() -> None:
    query, key, value = operands(1)
    with pytest.raises(InputError, match="do not fit"):
        quantise_operands(query, key[:, :, :4], value, FORMATS)
    with pytest.raises(InputError, match="too long"):
        machine_attention(quantise_operands(*operands(1, keys=40), load_config("tiny").formats), load_config("tiny"), 0)
