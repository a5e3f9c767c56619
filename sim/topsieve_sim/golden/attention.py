"""Golden model of the whole attention unit: every bit of probabilities, decisions, outputs and importance of a head.

The units' golden models in their order on the chip, over all heads and rows at once; a row with an unsure first pass is
computed once more with whole keys, and its first probabilities are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.arch.formats import NumberFormats
from topsieve_sim.errors import InputError
from topsieve_sim.golden.dot_product import dot_products, scores
from topsieve_sim.golden.numbers import (
    LOG2_E,
    Integers,
    ScoreFactor,
    msb_only,
    quantise,
    saturate_signed,
    score_factor,
    symmetric_scale,
)
from topsieve_sim.golden.progressive import needs_lsb
from topsieve_sim.golden.softmax import softmax
from topsieve_sim.golden.weighted_sum import weighted_sum


@dataclass(frozen=True)
class ScoreOperands:
    """Integer operands of the scores of a group of heads.

    query : int64 [heads, queries, head_dim]; key : int64 [kv_heads, keys, head_dim].
    factor : int64 [heads] (or scalars) multiplier and shift of the scores.
    bias : int64 [keys] in score units, or None.
    """

    query: Integers
    key: Integers
    factor: ScoreFactor
    bias: Integers | None


@dataclass(frozen=True)
class AttentionOperands:
    """Integer operands of a group of heads and what maps them back to real numbers.

    query : int64 [heads, queries, head_dim]; key, value : int64 [kv_heads, keys, head_dim].
    factor : int64 [heads] (or scalars) multiplier and shift of the scores.
    bias : int64 [keys] in score units, or None.
    value_scale : float64 [kv_heads], the step of values and outputs.
    """

    query: Integers
    key: Integers
    value: Integers
    factor: ScoreFactor
    bias: Integers | None
    value_scale: NDArray[np.float64]

    @property
    def of_scores(self) -> ScoreOperands:
        """Without the values."""
        return ScoreOperands(self.query, self.key, self.factor, self.bias)


def quantise_score_operands(
    query: ArrayLike, key: ArrayLike, formats: NumberFormats, bias: ArrayLike | None = None
) -> ScoreOperands:
    """The part of `quantise_operands` that probabilities depend on.

    Raises
    ------
    InputError
        shapes do not fit together, or a value is not finite.
    """
    q, k = (np.asarray(x, np.float64) for x in (query, key))
    if q.ndim != 3 or k.ndim != 3 or q.shape[2] != k.shape[2] or q.shape[0] % k.shape[0]:
        raise InputError(
            "shapes of query and key do not fit",
            value=(q.shape, k.shape),
            allowed="[heads, queries, d], [kv_heads, keys, d], heads a multiple of kv_heads",
        )
    q_scale, k_scale = symmetric_scale(q, formats.query_bits, (1, 2)), symmetric_scale(k, formats.key_bits, (1, 2))
    shared = q.shape[0] // k.shape[0]
    return ScoreOperands(
        query=quantise(q, q_scale, formats.query_bits),
        key=quantise(k, k_scale, formats.key_bits),
        factor=score_factor(q_scale[:, 0, 0], np.repeat(k_scale[:, 0, 0], shared), q.shape[2], formats),
        bias=None if bias is None else quantise_bias(bias, formats),
    )


def quantise_operands(
    query: ArrayLike, key: ArrayLike, value: ArrayLike, formats: NumberFormats, bias: ArrayLike | None = None
) -> AttentionOperands:
    """Symmetric integers of real operands, one step per head and operand.

    `query` [heads, queries, head_dim] and `key` before the 1/sqrt(head_dim) scale, `value` [kv_heads, keys, head_dim];
    heads is a multiple of kv_heads and query head h uses key-value head h // (heads / kv_heads). `bias` [keys] is added
    to the scaled scores (natural-log units).

    Raises
    ------
    InputError
        shapes do not fit together, or a value is not finite.
    """
    q, k, v = (np.asarray(x, np.float64) for x in (query, key, value))
    if q.ndim != 3 or k.ndim != 3 or v.shape != k.shape or q.shape[2] != k.shape[2] or q.shape[0] % k.shape[0]:
        raise InputError(
            "shapes of query, key and value do not fit",
            value=(q.shape, k.shape, v.shape),
            allowed="[heads, queries, d], [kv_heads, keys, d] twice, heads a multiple of kv_heads",
        )
    scored = quantise_score_operands(q, k, formats, bias)
    v_scale = symmetric_scale(v, formats.value_bits, (1, 2))
    return AttentionOperands(
        query=scored.query,
        key=scored.key,
        value=quantise(v, v_scale, formats.value_bits),
        factor=scored.factor,
        bias=scored.bias,
        value_scale=v_scale[:, 0, 0],
    )


def quantise_bias(bias: ArrayLike, formats: NumberFormats) -> Integers:
    """A bias in natural-log units as score integers: round half to even, saturate; minus infinity becomes the lowest."""
    steps = np.rint(np.asarray(bias, np.float64) * (LOG2_E * (1 << formats.score_fraction_bits)))
    limit = float(1 << (formats.score_bits - 1))
    return saturate_signed(np.clip(steps, -limit, limit).astype(np.int64), formats.score_bits)


@dataclass(frozen=True)
class AttentionResult:
    """What leaves the attention unit.

    probability : int64 [heads, queries, keys] of the pass that counted, before local value selection.
    lsb_rows : bool [heads, queries], rows computed twice.
    kept : bool [heads, queries, keys] survivors of local value selection, or None where all were kept.
    output : int64 [heads, queries, head_dim], in steps of the value.
    token_importance : int64 [keys], head_importance : int64 [heads]; what this group adds, not yet saturated.
    """

    probability: Integers
    lsb_rows: NDArray[np.bool_]
    kept: NDArray[np.bool_] | None
    output: Integers
    token_importance: Integers
    head_importance: Integers


def kept_mask(probability: Integers, kept: int) -> NDArray[np.bool_]:
    """The `kept` largest of each row (all when there are fewer keys), bool like `probability`; ties: lowest index."""
    keys = probability.shape[-1]
    if kept >= keys:
        return np.ones(probability.shape, np.bool_)
    # Distinct ranks in one integer: probability first, then the earlier index.
    rank = probability * keys + np.arange(keys - 1, -1, -1)
    border = np.partition(rank, keys - kept, axis=-1)[..., keys - kept : keys - kept + 1]
    return np.asarray(rank >= border)


def attention_probabilities(
    operands: ScoreOperands,
    formats: NumberFormats,
    capacity: int,
    threshold: int = 0,
    valid: NDArray[np.bool_] | None = None,
) -> tuple[Integers, NDArray[np.bool_]]:
    """`probability` and `lsb_rows` of `attention`, which the values have no part in."""
    shared = operands.query.shape[0] // operands.key.shape[0]
    key = np.repeat(operands.key, shared, axis=0) if shared > 1 else operands.key
    multiplier, shift = (np.broadcast_to(part, operands.query.shape[:1]) for part in operands.factor)
    factor = ScoreFactor(multiplier[:, None, None], shift[:, None, None])
    lsb_rows = np.zeros(operands.query.shape[:2], np.bool_)
    if threshold <= 0 or formats.key_lsb_bits == 0:
        whole = scores(dot_products(operands.query, key, formats), factor, formats, operands.bias)
        return softmax(whole, formats, capacity, valid)[0], lsb_rows
    first = scores(
        dot_products(operands.query, msb_only(key, formats.key_lsb_bits), formats), factor, formats, operands.bias
    )
    probability, largest = softmax(first, formats, capacity, valid)
    lsb_rows = needs_lsb(largest, threshold)
    for head in np.flatnonzero(lsb_rows.any(axis=1)):
        rows = np.flatnonzero(lsb_rows[head])
        whole = scores(
            dot_products(operands.query[head, rows], key[head], formats),
            ScoreFactor(multiplier[head], shift[head]),
            formats,
            operands.bias,
        )
        mask = None if valid is None else np.broadcast_to(valid, probability.shape)[head, rows]
        probability[head, rows], _ = softmax(whole, formats, capacity, mask)
    return probability, lsb_rows


def attention(
    operands: AttentionOperands,
    formats: NumberFormats,
    capacity: int,
    threshold: int = 0,
    kept: int | None = None,
    valid: NDArray[np.bool_] | None = None,
) -> AttentionResult:
    """All heads and rows of a group, to the bit.

    Parameters
    ----------
    threshold : integer threshold of the progressive decision (`golden.progressive.config_threshold`); 0 = one pass with
        whole keys, as when progressive quantisation is off.
    kept : survivors of local value selection for each row, or None for all.
    valid : bool, broadcasts against [heads, queries, keys]: causal masks; at least one key in each row.
    """
    shared = operands.query.shape[0] // operands.key.shape[0]
    value = np.repeat(operands.value, shared, axis=0) if shared > 1 else operands.value
    probability, lsb_rows = attention_probabilities(operands.of_scores, formats, capacity, threshold, valid)
    survivors = None if kept is None or kept >= value.shape[1] else kept_mask(probability, kept)
    weights = probability if survivors is None else np.where(survivors, probability, 0)
    output = weighted_sum(weights, value, formats)
    return AttentionResult(
        probability=probability,
        lsb_rows=lsb_rows,
        kept=survivors,
        output=output,
        token_importance=probability.sum(axis=(0, 1)),
        head_importance=np.abs(output).sum(axis=(1, 2)),
    )


@njit(cache=True)
def flush_cycles(
    probability: NDArray[np.int64], row_keys: NDArray[np.int64], kept: int, parallelism: int
) -> NDArray[np.int64]:
    """Whether the last filtered row completes a beat of survivors and leaves a partial one, 0 or 1, int64 [rows].

    The rest then leaves the top-k engine one cycle later. `probability` holds the rows one after the other,
    `row_keys[r]` elements each; `parallelism` is that of the engine.
    """
    flush = np.zeros(row_keys.size, np.int64)
    begin = 0
    for row in range(row_keys.size):
        keys = row_keys[row]
        scores = probability[begin : begin + keys]
        begin += keys
        border = (keys - 1) // parallelism * parallelism
        wanted = min(kept, keys)
        survivors = keys - border
        if wanted < keys:
            kth = np.partition(scores, keys - wanted)[keys - wanted]
            quota = wanted - np.count_nonzero(scores > kth) - np.count_nonzero(scores[:border] == kth)
            tied = np.count_nonzero(scores[border:] == kth)
            survivors = np.count_nonzero(scores[border:] > kth) + min(max(quota, 0), tied)
        before = wanted - survivors
        waiting = (before - 1) % parallelism + 1 if before > 0 else 0
        flush[row] = 1 if waiting + survivors > parallelism else 0
    return flush


def machine_attention(
    operands: AttentionOperands,
    config: AcceleratorConfig,
    threshold: int,
    kept: int | None = None,
    valid: NDArray[np.bool_] | None = None,
) -> AttentionResult:
    """`attention` with the formats and capacity of a machine.

    Raises
    ------
    InputError
        a row is longer than the machine's capacity.
    """
    require_capacity(operands.key.shape[1], config)
    return attention(operands, config.formats, config.capacity, threshold, kept, valid)


def require_capacity(keys: int, config: AcceleratorConfig) -> None:
    """Raise `InputError` for a row of `keys` keys that is longer than the machine's capacity."""
    if keys > config.capacity:
        raise InputError(
            "a row is too long for the machine", field="keys", value=keys, allowed=f"1 to {config.capacity}"
        )
