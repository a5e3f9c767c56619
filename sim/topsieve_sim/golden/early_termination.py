"""Golden model of early termination: a key's MSB plane bounds its probability and decides whether the rest is fetched.

The LSB plane of a key is unsigned, so a score that is computed with LSBs that lower it most is a lower bound, and adding
what the LSBs can change at most gives an upper one. Lower bounds of the keys seen so far bound the row's sum from below;
a key whose upper bound over that sum stays under the threshold is out: neither its LSB plane nor its value is fetched. The
softmax runs over the keys that are left, its candidates. No key is dropped whose probability among all keys reaches the
threshold.

The idea is Token-Picker's (specification `accelerator`, section 5.3); the octave-aligned sum and the bound in the
logarithm, which need no multiplier and no division a key, are ours. `docs/successor.md` describes the unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from topsieve_sim.arch.config import AcceleratorConfig
from topsieve_sim.arch.formats import NumberFormats
from topsieve_sim.errors import InputError
from topsieve_sim.golden.attention import AttentionOperands
from topsieve_sim.golden.dot_product import dot_products, scores
from topsieve_sim.golden.numbers import Integers, ScoreFactor, msb_only, round_half_up_shift
from topsieve_sim.golden.softmax import SoftmaxParameters, bit_length, exponential_of, softmax, softmax_parameters
from topsieve_sim.golden.weighted_sum import weighted_sum


@dataclass(frozen=True)
class TerminatedResult:
    """What leaves the attention unit of a machine that ends keys early.

    candidates : bool [kv_heads, keys], keys that any row of the head needs. whole : bool [kv_heads], heads whose candidates
    are computed with both planes. probability : int64 [heads, queries, keys], zero beside the candidates. output : int64
    [heads, queries, head_dim]. token_importance int64 [keys] and head_importance int64 [heads]: what this group adds.
    """

    candidates: NDArray[np.bool_]
    whole: NDArray[np.bool_]
    probability: Integers
    output: Integers
    token_importance: Integers
    head_importance: Integers


def log_steps(probability: float, formats: NumberFormats) -> int:
    """log2 of a probability in score steps, rounded down."""
    return math.floor(math.log2(probability) * (1 << formats.score_fraction_bits))


def interpolation_slack(formats: NumberFormats) -> int:
    """Score steps that cover how far the interpolated exponential lies above the true one.

    A chord of 2^-x over a segment of 2^-t lies above it by at most (ln 2 / 2^t)^2 / 8 of its value.
    """
    above = (math.log(2.0) / (1 << formats.exponential_table_bits)) ** 2 / 8
    return math.ceil(math.log2(1 + above) * (1 << formats.score_fraction_bits))


@njit(cache=True)
def log2_below(value: int, fraction_bits: int) -> int:
    """A lower bound of log2(`value`) in steps of 2^-fraction_bits, `value` >= 1: leading one, then the bits behind it.

    log2(1 + x) >= x on [0, 1], at most 0.087 above it.
    """
    whole = bit_length(value) - 1
    return ((whole - 1) << fraction_bits) + ((value << fraction_bits) >> whole)


@njit(cache=True)
def _bound_row(
    low: NDArray[np.int64],
    width: int,
    lanes: int,
    tile_keys: int,
    log_threshold: int,
    slack: int,
    unit: SoftmaxParameters,
    candidate: NDArray[np.bool_],
) -> tuple[int, int]:
    """Mark candidates of one row in `candidate`; the largest lower bound and the logarithm of their sum, in steps.

    `low` int64 [keys] are the lower bounds of the scores, `width` is what the LSBs add at most.
    """
    keys = low.size
    fraction_bits = unit.score_fraction_bits
    largest = low[0]
    octave = -(1 << 40)
    total = 0
    log_sum = 0
    tile_begin = 0
    for begin in range(0, keys, lanes):
        end = min(begin + lanes, keys)
        for j in range(begin, end):
            largest = max(largest, low[j])
        # The sum stands in units of the octave above the largest score, so a new maximum is a shift.
        above = -((-largest) >> fraction_bits)
        if above > octave:
            total = 0 if above - octave > 62 else total >> (above - octave)
            octave = above
        for j in range(begin, end):
            total += max(exponential_of((octave << fraction_bits) - low[j], unit) - 1, 0)
        if end == keys or end - tile_begin == tile_keys:
            log_sum = (octave - (unit.exponential_bits - 1)) << fraction_bits
            log_sum += log2_below(max(total, 1), fraction_bits)
            # What could be the largest of the row always stays.
            border = min(largest, log_sum + log_threshold - slack) - width
            for j in range(tile_begin, end):
                candidate[j] |= low[j] >= border
            tile_begin = end
    return largest, log_sum


def row_bounds(
    query: Integers, key: Integers, factor: ScoreFactor, formats: NumberFormats, bias: Integers | None = None
) -> tuple[Integers, Integers]:
    """Lower bounds of the scores, int64 [rows, keys], and how far above them a score can be, int64 [rows].

    `query` int64 [rows, head_dim], `key` int64 [keys, head_dim] of which only the MSB plane is looked at; `factor` int64
    [rows] each.
    """
    most = (1 << formats.key_lsb_bits) - 1
    negative = np.minimum(query, 0).sum(axis=-1) * most
    span = np.abs(query).sum(axis=-1) * most
    sums = dot_products(query, msb_only(key, formats.key_lsb_bits), formats) + negative[:, None]
    column = ScoreFactor(factor.multiplier[:, None], factor.shift[:, None])
    # Rounding moves two sums apart by less than one step; saturation and bias never do.
    width = round_half_up_shift(span * factor.multiplier, factor.shift) + (most > 0)
    return scores(sums, column, formats, bias), width


def bound_rows(
    low: Integers, width: Integers, config: AcceleratorConfig, threshold: float
) -> tuple[NDArray[np.bool_], Integers]:
    """Candidates of each row, bool [rows, keys], and by how many steps each row's sum exceeds its largest term, int64 [rows].

    `low` int64 [rows, keys] and `width` int64 [rows] are from `row_bounds`; `threshold` is the probability under which a key
    ends. The second result is -log2 of the largest first-pass probability.
    """
    formats = config.formats
    candidate = np.zeros(low.shape, np.bool_)
    flatness = np.zeros(low.shape[0], np.int64)
    tile = config.successor.tile_keys or low.shape[1]
    unit = softmax_parameters(formats, config.capacity)
    for row in range(low.shape[0]):
        largest, log_sum = _bound_row(
            low[row],
            int(width[row]),
            config.softmax.lanes,
            tile,
            log_steps(threshold, formats),
            interpolation_slack(formats),
            unit,
            candidate[row],
        )
        flatness[row] = log_sum - largest
    return candidate, flatness


def terminated_attention(
    operands: AttentionOperands, config: AcceleratorConfig, threshold: float = 0.0
) -> TerminatedResult:
    """All heads of a group to the bit; every row of a key-value head shares the head's candidates.

    Parameters
    ----------
    threshold : of the progressive decision: a head whose rows' largest first-pass probabilities all reach it is computed
        with its MSB plane alone; 0 = always with both planes.

    Raises
    ------
    InputError
        a row is longer than the machine's capacity, or the machine does not end keys early.
    """
    formats = config.formats
    heads, queries, head_dim = operands.query.shape
    kv_heads, keys = operands.key.shape[:2]
    if keys > config.capacity:
        raise InputError(
            "a row is too long for the machine", field="keys", value=keys, allowed=f"1 to {config.capacity}"
        )
    if not config.successor.terminates:
        raise InputError("the machine does not end keys early", source=config.name, field="termination_threshold")
    rows = heads // kv_heads * queries
    candidates = np.zeros((kv_heads, keys), np.bool_)
    whole = np.full(kv_heads, formats.key_lsb_bits > 0)
    probability = np.zeros((heads * queries, keys), np.int64)
    output = np.zeros((heads * queries, head_dim), np.int64)
    per_head = (np.broadcast_to(part, heads).repeat(queries) for part in operands.factor)
    multiplier, shift = (part.reshape(kv_heads, rows) for part in per_head)
    query = operands.query.reshape(kv_heads, rows, head_dim)
    for head in range(kv_heads):
        factor = ScoreFactor(multiplier[head], shift[head])
        low, width = row_bounds(query[head], operands.key[head], factor, formats, operands.bias)
        mine, flatness = bound_rows(low, width, config, config.successor.termination_threshold)
        chosen = np.flatnonzero(mine.any(axis=0))
        candidates[head, chosen] = True
        if threshold > 0:
            whole[head] &= bool((flatness > -log_steps(threshold, formats)).any())
        key = operands.key[head, chosen]
        exact = scores(
            dot_products(query[head], key if whole[head] else msb_only(key, formats.key_lsb_bits), formats),
            ScoreFactor(multiplier[head][:, None], shift[head][:, None]),
            formats,
            None if operands.bias is None else operands.bias[chosen],
        )
        weights, _ = softmax(exact, formats, config.capacity)
        place = slice(head * rows, (head + 1) * rows)
        probability[place, chosen] = weights
        output[place] = weighted_sum(weights, operands.value[head, chosen], formats)
    shaped = output.reshape(heads, queries, head_dim)
    return TerminatedResult(
        candidates=candidates,
        whole=whole,
        probability=probability.reshape(heads, queries, keys),
        output=shaped,
        token_importance=probability.sum(axis=0),
        head_importance=np.abs(shaped).sum(axis=(1, 2)),
    )
