"""Transforms of tokenizers and of training texts: byte-pair encoding, bytes from tokens, consistency, mixing, padding."""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topsieve.transforms import rainbow, tokenadapt
from topsieve.transforms.bigram import counted
from topsieve.transforms.bpe import Bpe, trained
from topsieve.transforms.byte_probabilities import Covers, canonical_bits
from topsieve.transforms.consistency import of_white_space, phantom_edits, sample
from topsieve_sim.errors import InputError

SAMPLE = "a loop over a list of lists; a list is a loop's friend, and the loop of a list is the list of a loop. " * 2


@cache
def toy(seed: int, merges: int = 4) -> Bpe:
    """A random encoding of a, b and c; c joins nothing, so every canonical sequence goes on."""
    draw = np.random.default_rng(seed)
    texts = ["a", "b"]
    pairs = []
    while len(pairs) < merges:
        left, right = (texts[draw.integers(len(texts))] for _ in range(2))
        if (left, right) not in pairs and left + right not in texts and len(left + right) <= 4:
            pairs.append((left, right))
            texts.append(left + right)
    return Bpe(("a", "b", "c"), tuple(pairs))


def model_of(encoding: Bpe, seed: int):
    """A random distribution behind each token."""
    size = len(encoding.vocabulary)
    table = np.random.default_rng(seed).random((size + 1, size))
    table /= table.sum(1, keepdims=True)
    return lambda tokens: table[tokens[-1] if len(tokens) else size]


def covered(model, encoding: Bpe, text: str) -> float:
    """The sum over covers by trying every token everywhere; canonical sequences only, known by encoding them anew."""
    total, open_ = 0.0, [((), 1.0)]
    while open_:
        tokens, probability = open_.pop()
        shares = np.asarray(model(tokens))
        canonical = [encoding.canonical((*tokens, token)) for token in range(len(shares))]
        shares = np.where(canonical, shares, 0)
        for token, share in enumerate(shares / shares.sum()):
            spelt = encoding.decode((*tokens, token))
            if not share:
                continue
            if spelt.startswith(text):
                total += probability * share
            elif text.startswith(spelt):
                open_.append(((*tokens, token), probability * share))
    return total


@given(st.integers(0, 30), st.text("abc", max_size=12))
def test_encoding_spells_its_text(seed, text):
    encoding = toy(seed)
    tokens = encoding.encode(text)
    assert encoding.decode(tokens) == text
    assert encoding.canonical(tokens)
    for length in range(len(tokens)):
        assert encoding.canonical(tokens[:length])


@given(st.integers(0, 30), st.data())
def test_neighbours_decide_whether_a_sequence_is_canonical(seed, data):
    encoding = toy(seed)
    tokens = data.draw(st.lists(st.integers(0, len(encoding.vocabulary) - 1), min_size=1, max_size=6))
    pairs = all(encoding.followers(left)[right] for left, right in itertools.pairwise([None, *tokens]))
    assert encoding.canonical(tokens) == pairs


def test_training_takes_the_most_frequent_pair_each_time():
    encoding = trained("abab abab abc", 3, chunks=r"\w+")
    assert encoding.merges == (("a", "b"), ("ab", "ab"), ("ab", "c"))
    words = [list(word) for word in SAMPLE.split()]
    expected = []
    for _ in range(12):
        counts: dict[tuple[str, str], int] = {}
        for word in words:
            for pair in itertools.pairwise(word):
                counts[pair] = counts.get(pair, 0) + 1
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        expected.append(best)
        for word in words:
            place = 0
            while place + 1 < len(word):
                if (word[place], word[place + 1]) == best:
                    word[place : place + 2] = ["".join(best)]
                place += 1
    assert trained(SAMPLE, 12, chunks=r"\S+").merges == tuple(expected)


def test_supertokens_span_words():
    texts = trained(SAMPLE, 60, chunks=tokenadapt.chunks(3)).vocabulary
    assert any(text.count(" ") == 3 for text in texts)
    assert all(text.count(" ") <= 3 for text in texts)
    assert not any(" " in text.strip() for text in trained(SAMPLE, 60).vocabulary)


@settings(max_examples=25)
@given(st.integers(0, 20), st.text("abc", min_size=1, max_size=5))
def test_byte_probabilities_are_the_sums_over_all_covers(seed, text):
    encoding = toy(seed)
    model = model_of(encoding, seed)
    covers = Covers(model, encoding)
    before = 1.0
    for letter in text:
        shares = covers.next_bytes()
        assert shares.sum() == pytest.approx(1, abs=1e-12)
        after = covered(model, encoding, covers.text + letter)
        # Sums of a few hundred products in double precision.
        assert shares[ord(letter)] == pytest.approx(after / before, rel=1e-10)
        covers.append(ord(letter))
        assert covers.log_probability() == pytest.approx(math.log(after), abs=1e-10)
        before = after
    assert len(covers.forwards) <= len(text) + 1


def test_a_byte_no_token_starts_with_is_refused():
    covers = Covers(model_of(toy(0), 0), toy(0))
    with pytest.raises(InputError, match="no token sequence"):
        covers.append(ord("z"))


def test_text_is_at_least_as_likely_as_its_one_encoding():
    encoding = trained(SAMPLE, 20)
    model = counted(encoding.encode(SAMPLE), len(encoding.vocabulary))
    covers = Covers(model, encoding)
    for letter in "a list of loops":
        covers.append(ord(letter))
    assert -covers.log_probability() / math.log(2) <= canonical_bits(model, encoding, "a list of loops") + 1e-9


def test_counted_model_is_a_distribution():
    model = counted([0, 1, 0, 1, 2], 4)
    assert np.allclose([model([token]).sum() for token in range(4)] + [model([]).sum()], 1)
    assert model([0])[1] > 0.8
    assert (model([3]) > 0).all()


@given(st.integers(0, 30), st.data())
def test_edits_are_where_the_tokens_differ(seed, data):
    encoding = toy(seed)
    tokens = data.draw(st.lists(st.integers(0, len(encoding.vocabulary) - 1), min_size=1, max_size=8))
    edits = phantom_edits(encoding, tokens)
    assert bool(edits) == (not encoding.canonical(tokens))
    for old, new in edits:
        assert old != new
        assert encoding.decode(old) == encoding.decode(new)
    changed = sum(len(new) - len(old) for old, new in edits)
    assert len(tokens) + changed == len(encoding.encode(encoding.decode(tokens)))


def test_white_space_variants_are_told_apart():
    encoding = Bpe(("a", " ", "b"), ((" ", "a"), ("a", "b")))
    (edit,) = phantom_edits(encoding, encoding.encode(" ") + encoding.encode("a"))
    assert of_white_space(encoding, edit)
    (edit,) = phantom_edits(encoding, encoding.encode("a") + encoding.encode("b"))
    assert not of_white_space(encoding, edit)


def test_masked_sampling_is_always_canonical():
    encoding = toy(1)
    model = model_of(encoding, 0)
    draw = np.random.default_rng(0)
    free = [encoding.canonical(sample(model, encoding, 12, draw, masked=False)) for _ in range(20)]
    assert not all(free)
    assert all(encoding.canonical(sample(model, encoding, 12, draw, masked=True)) for _ in range(20))


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=6), st.floats(0.05, 2))
def test_mixing_weights_sum_to_one(cosines, temperature):
    similar = torch.tensor(cosines, dtype=torch.float64)
    shares = torch.full_like(similar, 1 / len(similar))
    assert float(tokenadapt.local_weights(similar, shares, temperature).sum()) == pytest.approx(1)
    weights = tokenadapt.global_weights(similar, temperature, 0.0)
    assert float(weights.sum()) == pytest.approx(1 if max(cosines) >= 0 else 0)
    assert not weights[similar < 0].any()


def test_mixing_by_hand():
    cosines, shares = torch.tensor([0.2, 0.8], dtype=torch.float64), torch.tensor([0.25, 0.75], dtype=torch.float64)
    first = [math.exp(0.2), math.exp(0.8)]
    raw = [math.exp((part / sum(first) + share) / 2 / 0.30001) for part, share in zip(first, (0.25, 0.75), strict=True)]
    wanted = [part / sum(raw) for part in raw]
    assert tokenadapt.local_weights(cosines, shares, 0.3).tolist() == pytest.approx(wanted)
    local, near = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert tokenadapt.combined(local, near, 0.7).tolist() == pytest.approx([0.7, 0.3])
    assert tokenadapt.combined(None, near, 0.7) is near
    assert tokenadapt.combined(local, None, 0.7) is local
    assert tokenadapt.combined(None, None, 0.7) is None


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(9, 40), st.integers(1, 7))
def test_padding_is_one_end_and_a_cycle(tokens, length, pads):
    cycle = tuple(range(11, 11 + pads))
    row = rainbow.padded(tokens, length, 10, cycle)
    assert len(row) == length
    assert row[: len(tokens)] == tokens
    assert row.count(10) == 1
    tail = row[len(tokens) + 1 :]
    assert all(token == cycle[place % pads] for place, token in enumerate(tail))
    for start in range(len(tail) - pads + 1):
        assert sorted(tail[start : start + pads]) == list(cycle)
    assert rainbow.padded(tokens, length, 10, ()) == tokens + [10] * (length - len(tokens))
    assert rainbow.written(np.array(row), 10) == len(tokens)


def test_unmasking_fills_every_place_with_a_text_of_the_set():
    rows = [[0, 1, 2], [0, 3, 3, 3, 3], [4, 1]]
    texts = np.array([rainbow.padded(row, 12, 5, (6, 7, 8)) for row in rows])
    denoiser = rainbow.Denoiser(texts, 9, 4.0)
    shares = denoiser(np.full(12, rainbow.MASK))
    assert np.allclose(shares.sum(1), 1)
    assert shares[0].argmax() == 0
    row = rainbow.unmask(denoiser, 12, 12)
    assert row.tolist() in texts.tolist()
    one = texts[1].copy()
    one[2:] = rainbow.MASK
    assert denoiser(one)[4].argmax() == 3
