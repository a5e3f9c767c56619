"""Each rival's own algorithm against the same thing written another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.rival_cases import EIGHTH, TINY, attention_trace, heads_of, traces
from topsieve_sim.arch import load_config
from topsieve_sim.errors import InputError
from topsieve_sim.rivals import RIVALS, build, build_all, load_platform, platform_names
from topsieve_sim.rivals.a3 import A3, INTERVAL_OVERHEAD, greedy_estimates
from topsieve_sim.rivals.elsa import (
    Elsa,
    angle_bias,
    estimated_angles,
    hash_macs,
    kronecker_factors,
    projection,
    sign_bits,
)
from topsieve_sim.rivals.machine import Fetch
from topsieve_sim.rivals.mnnfast import MNNFast
from topsieve_sim.rivals.sanger import Sanger
from topsieve_sim.rivals.token_picker import TokenPicker, pick_row


def plain_search(query: list[int], key: np.ndarray, seen: int, iterations: int) -> list[int]:
    """A3's search with every product sorted at once: the largest left, then the smallest left, again and again."""
    products = [
        (query[column] * int(key[at, column]), column, at) for at in range(seen) for column in range(len(query))
    ]
    high = sorted(products, key=lambda entry: -entry[0])
    low = sorted(products, key=lambda entry: entry[0])
    estimates, found = [0] * len(key), 0
    for _ in range(iterations):
        if high and high[0][0] > 0:
            value, _, at = high.pop(0)
            estimates[at] += value
            found += value
        if found >= 0 and low and low[0][0] < 0:
            value, _, at = low.pop(0)
            estimates[at] += value
            found += value
    return estimates


@given(seed=st.integers(0, 2**32 - 1), keys=st.integers(1, 12), dim=st.integers(1, 5), iterations=st.integers(0, 70))
def test_a3_walks_the_sorted_columns_from_both_ends(seed, keys, dim, iterations):
    """Distinct products, so that the order between equal ones cannot matter."""
    random = np.random.default_rng(seed)
    query, key = random.integers(-2000, 2000, dim), random.integers(-2000, 2000, (keys, dim))
    distinct = {int(query[column]) * int(value) for column in range(dim) for value in key[:, column]}
    if len(distinct) < keys * dim:
        return
    seen = int(random.integers(1, keys + 1))
    estimates = np.zeros((1, keys), np.int64)
    order = np.argsort(key, axis=0, kind="stable")
    greedy_estimates(query[None], key, order, np.array([seen]), np.array([iterations]), estimates)
    assert estimates[0].tolist() == plain_search(query.tolist(), key, seen, iterations)


@settings(max_examples=30)
@given(trace=traces())
def test_a3_misses_no_positive_score_when_it_searches_to_the_end(trace):
    """After all products of a side are used up, an estimate is at least the score."""
    for head in heads_of(trace, TINY):
        numbers = head.operands
        everything = A3(search=head.head_dim, margin_percent=0)
        positive = (numbers.query @ numbers.key.T > 0) & head.visible
        assert not (positive & ~everything.candidates(head, numbers)).any()


@settings(max_examples=30)
@given(trace=traces(), search=st.floats(0.01, 3), margin=st.floats(0.1, 60))
def test_a3_costs_the_largest_of_search_candidates_and_survivors(trace, search, margin):
    rival = A3(search=search, margin_percent=margin)
    for head in heads_of(trace, EIGHTH):  # 64 multipliers hold a key of up to 64 elements: a key a cycle
        candidates = rival.candidates(head, head.operands)
        kept = rival.survivors(head.operands, candidates)
        assert (kept <= candidates).all()
        assert kept.any(axis=1).all()
        best = np.where(candidates, head.operands.scores, -np.inf).max(axis=1)
        for row in range(head.rows):
            for at in np.flatnonzero(candidates[row]):
                share = 100 * math.exp(head.operands.scores[row, at] - best[row])
                if abs(share - margin) > 1e-6:
                    assert kept[row, at] == (share > margin)
        wanted = [
            max(math.ceil(search * seen), int(c), int(k)) + INTERVAL_OVERHEAD
            for seen, c, k in zip(head.row_keys, candidates.sum(axis=1), kept.sum(axis=1), strict=True)
        ]
        cost = rival.cost(head, EIGHTH, 0.0)
        assert cost.job_cycles.tolist() == wanted
        assert Fetch.INDEX not in cost.fetch_bits
        spilled = rival.model_copy(update={"spilled": True}).cost(head, EIGHTH, 0.0)
        assert spilled.fetch_bits[Fetch.INDEX] == 2 * spilled.fetch_bits[Fetch.KEY]


@settings(max_examples=30)
@given(trace=traces(), threshold=st.floats(0.001, 0.9), overlap=st.booleans())
def test_mnnfast_skips_values_and_nothing_else(trace, threshold, overlap):
    rival = MNNFast(threshold=threshold, overlap=overlap)
    for head in heads_of(trace, EIGHTH):
        cost = rival.cost(head, EIGHTH, 0.0)
        skipped = 0.0
        for row in range(head.rows):
            scores = head.operands.scores[row, : head.row_keys[row]]
            probability = np.exp(scores - scores.max())
            probability /= probability.sum()
            added = probability >= threshold
            output = (probability * added) @ head.operands.value[: scores.size]
            np.testing.assert_allclose(cost.output[row], output, rtol=0, atol=1e-12 * np.abs(head.operands.value).max())
            skipped += probability[~added].sum()
            # 64 multipliers take 64 / 8 keys of up to 8 elements a cycle.
            both = math.ceil(scores.size / 8), math.ceil(max(added.sum(), 1) / 8)
            assert cost.job_cycles[row] == (max(both) if overlap else sum(both))
        assert cost.scores == head.scores_seen
        assert set(cost.fetch_bits) == {Fetch.KEY, Fetch.VALUE}
        assert (cost.weighted == head.scores_seen) == (skipped == 0)


@pytest.mark.parametrize("dim", [1, 2, 3, 6, 8, 12, 32, 64, 80, 128])
def test_elsas_projection_is_orthogonal_and_costs_its_factors(dim):
    matrix = projection(dim, 0)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(dim), atol=1e-12)
    assert math.prod(kronecker_factors(dim)) == dim
    # A vector reshaped to the factors' sizes is multiplied by one small matrix along each of its axes.
    random = np.random.default_rng(0)
    generator = np.random.default_rng(0)
    small = [np.linalg.qr(generator.standard_normal((size, size)))[0] for size in kronecker_factors(dim)]
    tensor, macs = random.standard_normal(kronecker_factors(dim)), 0
    whole = matrix @ tensor.reshape(-1)
    for axis, factor in enumerate(small):
        tensor = np.moveaxis(np.tensordot(factor, tensor, axes=(1, axis)), 0, axis)
        macs += factor.shape[0] * tensor.size
    np.testing.assert_allclose(tensor.reshape(-1), whole, atol=1e-12)
    assert macs == hash_macs(dim)
    assert hash_macs(64) == 768


def test_elsas_angles_are_those_of_the_vectors():
    """Equal and opposite vectors are told exactly; over all pairs the estimate is centred, within its sampling error."""
    matrix = projection(64, 0)
    first, second = np.random.default_rng(5).standard_normal((2, 2000, 64))
    hashes = sign_bits(first, matrix)
    assert np.abs(np.diag(estimated_angles(hashes, sign_bits(first, matrix)))).max() == 0
    np.testing.assert_allclose(np.diag(estimated_angles(hashes, sign_bits(-first, matrix))), math.pi)
    angles = np.diag(estimated_angles(hashes, sign_bits(second, matrix)))
    cosines = (first * second).sum(axis=1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    error = angles - np.arccos(cosines)
    assert abs(error.mean()) <= 4 * error.std() / math.sqrt(error.size)
    # The bias is its own quantile: 80 % of new pairs are not overestimated, within four standard errors.
    assert abs((error <= angle_bias(64, 0)).mean() - 0.8) <= 4 * math.sqrt(0.8 * 0.2 / error.size) + 1 / 64


@settings(max_examples=30)
@given(trace=traces(min_keys=2), degree=st.floats(0.1, 4))
def test_elsa_learns_the_least_similarity_that_counts(trace, degree):
    rival, heads, smallest = Elsa(degree=degree), heads_of(trace, EIGHTH), []
    for head in heads:
        numbers = head.operands
        longest = max(math.sqrt(float(k @ k)) for k in numbers.key) or 1.0
        for row in range(head.rows):
            scores = numbers.scores[row, : head.row_keys[row]]
            probability = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            wanted = [
                at for at in range(scores.size) if probability[at] >= min(degree / scores.size, probability.max())
            ]
            norm = math.sqrt(float(numbers.query[row] @ numbers.query[row])) or 1.0
            smallest.append(min(float(numbers.query[row] @ numbers.key[at]) / norm / longest for at in wanted))
    assert rival.learned(heads) == pytest.approx(np.mean(smallest), rel=1e-9, abs=1e-12)


@settings(max_examples=30)
@given(trace=traces(), threshold=st.floats(-0.5, 1.0))
def test_elsa_keeps_keys_whose_estimate_reaches_the_threshold(trace, threshold):
    rival = Elsa()
    for head in heads_of(trace, EIGHTH):
        numbers, dim = head.operands, head.head_dim
        matrix = projection(dim, 0)
        kept = rival.candidates(head, numbers, threshold)
        norms = [math.sqrt(float(k @ k)) for k in numbers.key]
        for row in range(head.rows):
            query = [float(value) >= 0 for value in matrix @ numbers.query[row]]
            estimates = []
            for at in range(head.row_keys[row]):
                key = [float(value) >= 0 for value in matrix @ numbers.key[at]]
                hamming = sum(a != b for a, b in zip(query, key, strict=True))
                angle = max(math.pi * hamming / dim - angle_bias(dim, 0), 0.0)
                estimates.append(math.cos(angle) * norms[at])
            border = threshold * max(*norms, 1.0)
            wanted = [at for at, value in enumerate(estimates) if value >= border] or [int(np.argmax(estimates))]
            if min(abs(value - border) for value in estimates) > 1e-6:
                assert np.flatnonzero(kept[row]).tolist() == wanted


@settings(max_examples=30)
@given(trace=traces(), degree=st.floats(0.1, 2))
def test_elsas_fullest_bank_sets_the_pace(trace, degree):
    """512 + 512 multipliers are 64 banks of 8 elements; keys are dealt to them in turn."""
    config, rival = load_config("spatten"), Elsa(degree=degree)
    heads = heads_of(trace, config)
    learned = rival.learned(heads)
    for head in heads:
        kept = rival.candidates(head, head.operands, learned)
        cost = rival.cost(head, config, learned)
        for row in range(head.rows):
            banks = np.bincount(np.flatnonzero(kept[row]) % 64, minlength=64)
            assert cost.job_cycles[row] == max(1, banks.max() + math.ceil(hash_macs(head.head_dim) / 512))


def test_elsa_hashes_new_keys_and_reads_old_hashes():
    (prefill,) = heads_of(attention_trace(3, kv_heads=1, queries=16, keys=16), EIGHTH)
    (decode,) = heads_of(attention_trace(3, kv_heads=1, queries=1, keys=16), EIGHTH)
    first, later = (Elsa().cost(head, EIGHTH, 0.1) for head in (prefill, decode))
    assert Fetch.INDEX not in first.fetch_bits
    assert later.fetch_bits[Fetch.INDEX] == 15 * (8 + 8)
    assert first.before_cycles == 16 * later.before_cycles


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 6), keys=st.integers(1, 200), share=st.floats(0, 1))
def test_sanger_packs_and_splits_rows(seed, rows, keys, share):
    mask = np.random.default_rng(seed).random((rows, keys)) < share
    lines = 0
    for row in range(rows):
        for first in range(0, keys, 64):
            survivors = int(mask[row, first : first + 64].sum())
            while survivors > 0:
                lines += 1
                survivors -= 16
    assert Sanger().lines(mask) == lines
    assert lines * 16 >= mask.sum()


@settings(max_examples=30)
@given(trace=traces(), threshold=st.floats(0.01, 0.5))
def test_sanger_masks_by_the_few_bit_softmax(trace, threshold):
    rival = Sanger(threshold=threshold)
    for head in heads_of(trace, EIGHTH):
        numbers, formats = head.operands, EIGHTH.formats
        mask = rival.mask(head, numbers, formats)
        assert mask.any(axis=1).all()
        assert not (mask & ~head.visible).any()
        few = {}
        for name, bits in (("query", formats.query_bits), ("key", formats.key_bits)):
            integers = getattr(numbers, name)
            few[name] = np.rint(integers * 7 / (2 ** (bits - 1) - 1))
            assert np.abs(few[name]).max() <= 7
        scale = numbers.scale * (2 ** (formats.query_bits - 1) - 1) * (2 ** (formats.key_bits - 1) - 1) / 49
        for row in range(head.rows):
            seen = head.row_keys[row]
            scores = few["query"][row] @ few["key"][:seen].T * scale[row] + numbers.bias[:seen]
            probability = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            clear = np.abs(probability - threshold) > 1e-9
            if probability.max() >= threshold:
                assert (mask[row, :seen] == (probability >= threshold))[clear].all()


def test_token_picker_reads_less_where_attention_is_sharp():
    flat, sharp = (
        TokenPicker(threshold=0.001).cost(
            heads_of(attention_trace(4, kv_heads=1, queries=1, keys=512, head_dim=64, peak=peak), EIGHTH)[0],
            EIGHTH,
            0.0,
        )
        for peak in (0.1, 6.0)
    )
    assert sharp.fetch_bits[Fetch.KEY] < 0.8 * flat.fetch_bits[Fetch.KEY]
    assert sharp.fetch_bits[Fetch.VALUE] < 0.2 * 512 * 64 * 12


def test_token_pickers_lower_bound_takes_unknown_bits_at_their_worst():
    """Both first chunks are zero; only the unknown bits tell that the newer key loses all and the older one nothing."""
    query, key = np.array([-100]), np.array([[0], [0x0FF]])
    taken, kept = np.zeros(2, np.int64), np.zeros(2, np.bool_)
    pick_row(query, key, np.zeros(2), 0.01, 0.0, 4, 3, 0.9, 5, taken, kept)
    assert kept.tolist() == [True, False]
    assert taken.tolist() == [3, 3]


def test_every_name_builds_with_its_defaults():
    for name in RIVALS:
        entrant = build(name)
        assert build(entrant.label) == entrant


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a4", ("unknown rival", "'a4'", "a3, mnnfast")),
        ("a3:search", ("rival a3", "knob=value")),
        ("a3:depth=2", ("rival a3", "depth", "unknown field", "search")),
        ("a3:search=many", ("rival a3", "search", "'many'")),
        ("a3:search=1,search=2", ("rival a3", "search", "twice")),
        ("mnnfast:threshold=1.5", ("threshold", "1.5", "<= 1")),
        ("systolic:dataflow=rs", ("dataflow", "'rs'")),
        ("roofline:platform=cray-1", ("unknown platform", "'cray-1'", "titan-xp")),
    ],
)
def test_wrong_text_is_one_line(text, words):
    with pytest.raises(InputError) as error:
        build(text)
    for word in words:
        assert word in str(error.value)


def test_a_rival_is_named_once():
    with pytest.raises(InputError, match="given twice"):
        build_all(["a3", "a3:search=0.5"])
    with pytest.raises(InputError, match="no rival given"):
        build_all([])


def test_platforms_have_sources():
    assert {"titan-xp", "xeon-e5-2640-v4", "jetson-nano", "raspberry-pi-4"} <= set(platform_names())
    for name in platform_names():
        platform = load_platform(name)
        assert platform.name == name
        # Peak over bandwidth is where a roof bends: a few to a few hundred operations a byte on any real machine.
        assert 1 < platform.peak_gflops.value / platform.bandwidth_gb_per_s.value < 1000
