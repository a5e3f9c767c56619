"""Prompt methods against the specification's toy vectors, and against its text with plain loops."""

from __future__ import annotations

import math
import string
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from software.tiny_text import TEXT, attributor, classifier, informed, tiny
from topsieve.corpus import sentences
from topsieve.methods import build
from topsieve.methods.exit import yes_probability
from topsieve.methods.frugalprompt import FrugalPrompt, merged_pieces
from topsieve.methods.llmlingua2 import LlmLingua2, chunked
from topsieve.prompt import Prompt, compress
from topsieve.prompt.information import InformationModel
from topsieve.prompt.judge import TEMPLATE, EmbeddingJudge, LanguageModelJudge
from topsieve.prompt.lexrank import inverse_frequencies, lexrank
from topsieve.prompt.roles import Run
from topsieve.prompt.words import Piece, PieceRule, word_probability, words_of
from topsieve.reduction.roles import BitPlan
from topsieve.subjects.byte_gpt.model import POSITIONS, load_byte_gpt
from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate
from topsieve_sim.errors import InputError
from topsieve_sim.trace.ops import QueryKey

torch.set_num_threads(1)

BOUNDED = settings(max_examples=60, deadline=None)
SHARES = st.integers(0, 20).map(lambda number: number / 20)


def percentile(values: list[float], index: float) -> float:
    """Between two order statistics, along a straight line."""
    ordered = sorted(values)
    place = index / 100 * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


# Toy vectors: specification `methods-text`, section 24.
TOY = [0.9, 0.2, 0.55, 0.55, 0.1, 0.8, 1.0]
TOY_LENGTHS = dict(zip("abcdefg", [1, 2, 1, 1, 3, 1, 1], strict=True))


@pytest.mark.parametrize(
    ("rate", "kept"), [(0.5, [0, 2, 3, 5, 6]), (0.33, [0, 5, 6]), (0.8, [0, 1, 2, 3, 5, 6]), (1e-9, [6])]
)
def test_llmlingua2_toy_vectors(rate: float, kept: list[int]) -> None:
    _, found = LlmLingua2().kept_words("abcdefg", TOY, rate, TOY_LENGTHS.__getitem__)
    # At a rate of nearly nothing the threshold is 1, and words of probability 1 stay all the same.
    assert found == kept


def test_llmlingua2_certain_words_stay() -> None:
    _, found = LlmLingua2().kept_words("abcd", [1.0, 1.0, 1.0, 0.3], 0.5, len)
    assert found == [0, 1, 2]
    _, none = LlmLingua2().kept_words("abcd", [0.5] * 4, 0.5, len)
    assert none == [], "words all equal to the threshold go"
    _, paper = LlmLingua2(variant="paper").kept_words("abcd", [0.5] * 4, 0.5, len)
    assert paper == [0, 1]


# Of rates of 0.1 to 0.9; cut, not rounded: 20 and 10 where 21 and 11 were meant.
PUBLISHED = (91, 81, 76, 71, 68, 61, 51, 41, 31, 26, 20, 10)


@pytest.mark.parametrize(
    ("rate", "index"),
    dict(zip([0.1, 0.2, 0.25, 0.3, 0.33, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9], PUBLISHED, strict=True)).items(),
)
def test_llmlingua2_percentile_index(rate: float, index: int) -> None:
    """Scores 0 to 100: what stays is over the index itself."""
    scores = [float(number) for number in range(101)]
    _, found = LlmLingua2().kept_words(["w"] * 101, scores, rate, len)
    assert found == list(range(index + 1, 101))


PIECES = st.sampled_from(["▁the", "▁a", "re", "s", ".", "▁.", ",", "▁2", "0", "▁New", "<unk>", "x", "▁", "()", "##b"])
BERT_PIECES = st.sampled_from(["the", "a", "##re", "##s", ".", ",", "2", "##0", "#", "[UNK]", "x", "###b"])


@given(data=st.data(), rule=st.sampled_from(PieceRule), digits=st.booleans(), how=st.sampled_from(["mean", "first"]))
@BOUNDED
def test_llmlingua2_words(data: st.DataObject, rule: PieceRule, digits: bool, how: str) -> None:
    pieces = data.draw(st.lists(PIECES if rule is PieceRule.XLM_R else BERT_PIECES, max_size=10))
    shares = data.draw(st.lists(SHARES, min_size=len(pieces), max_size=len(pieces)))
    forced, specials = ["a", "."], {"<unk>", "[UNK]"}
    found = words_of(
        [Piece(piece, 0, 0) for piece in pieces],
        [np.float32(share) for share in shares],
        rule,
        specials=specials,
        forced=forced,
        reserve_digits=digits,
    )

    words: list[list[object]] = []
    for piece, share in zip(pieces, shares, strict=True):
        if piece in specials:
            continue
        if rule is PieceRule.XLM_R:
            begins = piece in string.punctuation or piece in forced or piece.startswith("▁")
            bare = piece.lstrip("▁")
        else:
            begins = piece.lstrip("#") in forced or not piece.startswith("##")
            bare = piece.lstrip("#")
        holds = digits and any(letter in string.digits for letter in piece)
        if begins or not words:
            words.append([piece, [1.0 if bare in forced or holds else share]])
        else:
            words[-1][0] = str(words[-1][0]) + bare
            words[-1][1].append(1.0 if holds else share)  # type: ignore[attr-defined]
    assert [word.text for word in found] == [text for text, _ in words]
    for word, (_, values) in zip(found, words, strict=True):
        assert isinstance(values, list)
        wanted = values[0] if how == "first" else sum(values) / len(values)
        assert word_probability(word.probabilities, how) == pytest.approx(wanted, rel=1e-6)


@given(
    scores=st.lists(SHARES, min_size=1, max_size=12),
    rate=st.sampled_from([0.1, 0.33, 0.5, 0.8, 0.9]),
    seed=st.integers(0, 9),
)
@BOUNDED
def test_llmlingua2_selection(scores: list[float], rate: float, seed: int) -> None:
    words = [string.ascii_letters[: 1 + (seed * number) % 4] for number in range(len(scores))]
    _, found = LlmLingua2().kept_words(words, scores, rate, len)
    weighed = [score for word, score in zip(words, scores, strict=True) for _ in word]
    limit = percentile(weighed, int(100 * (1 - rate) + 1))
    # An order statistic met exactly may differ from the line by a rounding; such words are left out of the comparison.
    clear = [number for number, score in enumerate(scores) if abs(score - limit) > 1e-9]
    assert [number for number in found if number in clear] == [n for n in clear if scores[n] > limit]


def test_llmlingua2_consecutive_forced_words() -> None:
    method = LlmLingua2(force_tokens=(".",), drop_consecutive=True)
    words = ["a", ".", ".", "b", ".", "c", "."]
    scores, kept = method.kept_words(words, [0.9, 1.0, 1.0, 0.1, 1.0, 0.8, 1.0], 0.9, len)
    assert scores == [0.9, 1.0, 0.0, 0.1, 0.0, 0.8, 1.0], "b is not worth keeping, so nothing is between the full stops"
    assert kept == [0, 1, 3, 5, 6]


@given(ends=st.lists(st.booleans(), max_size=40), limit=st.integers(1, 12))
@BOUNDED
def test_llmlingua2_chunks(ends: list[bool], limit: int) -> None:
    pieces = [Piece("." if end else "w", number, number + 1) for number, end in enumerate(ends)]
    chunks = chunked(pieces, {"."}, limit)
    assert [piece for chunk in chunks for piece in chunk] == pieces
    for chunk in chunks[:-1]:
        assert len(chunk) <= limit + 1
        if chunk[-1].text != ".":
            assert len(chunk) == limit + 1
            assert "." not in [piece.text for piece in chunk[1:]]
        else:
            start = chunk[0].start
            assert not any(ends[chunk[-1].end : start + limit + 1]), "the last end within reach"
    assert not chunks or len(chunks[-1]) <= limit + 1


def test_llmlingua2_contexts() -> None:
    """Three contexts at a rate of 0.4: those over the percentile of 30 of the means stay, then words at 0.4."""
    scorer, texts = classifier(), (TEXT, "Files are closed.", "A manager may suppress exceptions, it is rarely wise.")
    short = compress("llmlingua-2:keep=0.4", Prompt(texts), scorer=scorer)
    means = []
    for text in texts:
        found = [compress("llmlingua-2:keep=0.4", text, scorer=scorer).reduction.scores[0]]
        means.append(float(torch.cat(found).mean()))
    limit = percentile(means, int(100 * (1 - (0.4 + 1) / 2)))
    alone = [compress("llmlingua-2:keep=0.4", text, scorer=scorer).text for text in texts]
    kept = [text for text, mean in zip(alone, means, strict=True) if mean >= limit]
    assert 0 < len(kept) < 3
    assert short.text == "\n\n".join(kept)
    whole = compress("llmlingua-2:keep=0.4,context_filter=false", Prompt(texts), scorer=scorer)
    assert whole.text == "\n\n".join(alone)


def test_llmlingua2_targets_and_forced_phrases() -> None:
    scorer = classifier()
    pieces = len(scorer.pieces(TEXT))
    target = compress("llmlingua-2:target_tokens=30", TEXT, scorer=scorer)
    rate = compress(LlmLingua2(keep=30 / pieces), TEXT, scorer=scorer)
    assert target.kept == rate.kept
    forced = compress(LlmLingua2(keep=0.2, force_tokens=("manager may", "2")), TEXT, scorer=scorer)
    assert "manager may" in forced.text
    assert "2" in forced.text.split()
    source = compress(LlmLingua2(keep=0.3, surface="source"), TEXT, scorer=scorer)
    assert all(word in TEXT for word in source.text.split())


# FrugalPrompt.


@pytest.mark.parametrize(("keep", "kept"), [(0.8, [0, 1, 3, 4]), (0.6, [0, 1, 3]), (0.5, [1, 3])])
def test_frugalprompt_toy_vectors(keep: float, kept: list[int]) -> None:
    words, scores = ["the", "cat", "a", "cat", "sat"], [0.5, 0.9, 0.5, 0.9, 0.5]
    method = FrugalPrompt(keep=keep)
    assert method.ranked(words, scores) == [3, 1, 0, 4, 2]
    assert method.kept(words, scores) == kept


def test_frugalprompt_counts_round_halves_to_even() -> None:
    method = FrugalPrompt(keep=0.5)
    assert [len(method.kept(["w"] * n, [0.0] * n)) for n in (1, 2, 3, 5, 7, 9)] == [0, 1, 2, 2, 4, 4]


def test_frugalprompt_pieces() -> None:
    tokens = ["<s>", "▁conserv", "ative", "s", "▁win", "!", "ing", "▁internationalisation", "</s>"]
    scores = [np.float32(number) for number in range(9)]
    whole = merged_pieces(tokens, scores, PieceRule.XLM_R, {"<s>", "</s>"})
    assert [(text, float(score)) for text, score in whole] == [
        ("<s>", 0.0), ("▁conservatives", 6.0), ("▁win", 4.0), ("!ing", 11.0), ("▁internationalisation", 7.0), ("</s>", 8.0),
    ]  # fmt: skip
    short = ["<s>", "▁conserv", "ati", "ves", "▁win", "</s>"]
    cut = merged_pieces(short, scores[:6], PieceRule.XLM_R, {"<s>", "</s>"}, cut_to_first_width=True)
    assert [text for text, _ in cut] == ["<s>", "▁conservati", "▁win", "</s>"], "as the published example"
    bert = merged_pieces(["[CLS]", "en", "##ter", "(", ")"], scores[:5], PieceRule.BERT, {"[CLS]"})
    assert [(text, float(score)) for text, score in bert] == [("[CLS]", 0), ("enter", 3), ("(", 3), (")", 4)]


@pytest.mark.parametrize("how", ["decompx", "globenc"])
def test_frugalprompt_whole(how: str) -> None:
    scorer = attributor(how)
    short = compress(FrugalPrompt(keep=0.6, attribution=how), TEXT, scorer=scorer)  # type: ignore[arg-type]
    triples: list[tuple[float, str, int]] = []
    found = sentences(TEXT)
    weights = lexrank(found, inverse_frequencies(list(" ".join(found)))) if how == "globenc" else [1.0] * len(found)
    for sentence, weight in zip(found, weights, strict=True):
        tokens, scores, _ = scorer.attribute(sentence.lower() if how == "globenc" else sentence, Run())
        low, high = float(scores.min()), float(scores.max())
        words: list[tuple[str, float]] = []
        for token, score in zip(tokens, scores, strict=True):
            share = (float(score) - low) / (high - low)
            if token.startswith("##"):
                words[-1] = (words[-1][0] + token[2:], words[-1][1] + share)
            else:
                words.append((token, share))
        if how == "globenc":
            low, high = min(s for _, s in words), max(s for _, s in words)
            words = [(text, (share - low) / (high - low) * weight) for text, share in words]
        triples += [(share, text, len(triples) + n) for n, (text, share) in enumerate(words)]
    triples = sorted((t for t in triples if t[1] not in ("[CLS]", "[SEP]")), reverse=True)
    # DecompX on this text makes no word longer than the longest token, so nothing is cut.
    kept = sorted(triples[: round(len(triples) * 0.6)], key=lambda triple: triple[2])
    assert short.text == " ".join(text for _, text, _ in kept)


def test_frugalprompt_keeps_numbers_of_the_question() -> None:
    method = FrugalPrompt(keep=0.1, keep_numbers=True)
    short = compress(method, Prompt((TEXT,), "why 2 of -1,000.5?"), scorer=attributor("decompx"))
    assert "2" in short.text.split()
    assert "2" not in compress(FrugalPrompt(keep=0.1), TEXT, scorer=attributor("decompx")).text.split()


def test_lexrank_is_the_stationary_distribution() -> None:
    texts = ["a cat sat on a mat", "the cat ran", "a mat is flat", "nothing in common here", "cat and mat"]
    frequencies = inverse_frequencies(texts)
    scores = lexrank(texts, frequencies)
    counts = [Counter(text.split()) for text in texts]

    def cosine(left: Counter[str], right: Counter[str]) -> float:
        weight = lambda word: math.log(5 / sum(word in each for each in counts))  # noqa: E731
        dot = sum(left[w] * right[w] * weight(w) ** 2 for w in left)
        norms = [math.sqrt(sum((c * weight(w)) ** 2 for w, c in each.items())) for each in (left, right)]
        return dot / (norms[0] * norms[1])

    like = [[float(i == j or cosine(x, y) >= 0.03) for j, y in enumerate(counts)] for i, x in enumerate(counts)]
    # Of a walk on an undirected graph, the stationary share of a place is its degree.
    assert scores[3] == 1.0
    degrees = [sum(row) for row in like]
    rest = [0, 1, 2, 4]
    for number in rest:
        assert scores[number] == pytest.approx(4 * degrees[number] / sum(degrees[other] for other in rest), rel=1e-6)
    assert lexrank(texts[:1], {}) == [1.0]


# EXIT.


@given(yes=st.floats(-900, 900), no=st.floats(-900, 900))
@BOUNDED
def test_exit_probability(yes: float, no: float) -> None:
    wanted = torch.tensor([yes, no], dtype=torch.float64).softmax(-1)[0]
    assert yes_probability(yes, no) == pytest.approx(float(wanted), abs=1e-15)
    assert yes_probability(no, no) == 0.5


def test_exit_keeps_sentences_in_order() -> None:
    question = "when are files closed?"
    judged = EmbeddingJudge(tiny(), 8.0, -4.0)
    vectors = []
    for text in (question, *sentences(TEXT)):
        with torch.no_grad():
            hidden = tiny().model(**tiny().batch(tiny().tokens([text]))).last_hidden_state[0].mean(0)
        vectors.append(hidden / hidden.norm())
    scores = [1 / (1 + math.exp(4 - 8 * float(vectors[0] @ vector))) for vector in vectors[1:]]
    limit = sorted(scores)[2]
    short = compress(build(f"exit:threshold={limit - 1e-6}"), Prompt((TEXT,), question), scorer=judged)
    wanted = [text for text, score in zip(sentences(TEXT), scores, strict=True) if score >= limit]
    assert short.text == " ".join(wanted)
    assert short.reduction.scores[0].tolist() == pytest.approx(scores, abs=1e-5)
    none = compress("exit:threshold=1", Prompt((TEXT,), question), scorer=judged)
    assert (none.text, none.kept) == ("", ())
    both = compress("exit:threshold=0,joint=documents", Prompt((TEXT, "One more. Two."), question), scorer=judged)
    assert both.text == TEXT + "\n\nOne more. Two."


def test_exit_asks_a_language_model_as_published() -> None:
    """byte-gpt, which knows no yes: what counts is which scores of which prompt are read."""
    model = load_byte_gpt()
    judged = LanguageModelJudge(model, lambda text: list(text.encode()), ord("Y"), ord("N"), POSITIONS)
    text, question = "Files close. A block ends.", "when?"
    short = compress("exit", Prompt((text,), question), scorer=judged)
    for number, sentence in enumerate(("Files close.", "A block ends.")):
        asked = TEMPLATE.format(question=question, context=text, sentence=sentence)
        with torch.no_grad():
            last = model(input_ids=torch.tensor([list(asked.encode())])).logits[0, -1]
        share = float(torch.stack([last[ord("Y")], last[ord("N")]]).softmax(-1)[0])
        assert float(short.reduction.scores[0, number]) == pytest.approx(share, rel=1e-5)
        assert (number in short.kept) == (share >= 0.5)
    assert short.work is not None
    lengths = {op.queries for op in short.work.ops if isinstance(op, QueryKey)}
    assert lengths == {len(TEMPLATE.format(question=question, context=text, sentence=s)) for s in sentences(text)}
    shared = compress(
        "exit:variant=paper", Prompt((text,), question), scorer=judged, operands=True, bits=BitPlan(12, 12, 0, 12, 0.0)
    )
    assert shared.reduction.scores.equal(short.reduction.scores)
    assert shared.work is not None
    before = TEMPLATE.partition("{sentence}")[0].format(question=question, context=text)
    asked_again = [op for op in shared.work.ops if isinstance(op, QueryKey) and op.sequence == 1]
    assert {op.keys - op.queries for op in asked_again} == {len(before)}, "the sentences begin with other letters"
    assert {op.queries for op in shared.work.ops if isinstance(op, QueryKey) and op.sequence == 0} <= lengths
    assert simulate(shared.work, load_config("spatten-eighth"), seed=0).cycles > 0
    with pytest.raises(InputError, match="at most 512 tokens"):
        compress("exit", Prompt(("word " * 120,), question), scorer=judged)


# Selective-Context.


def information_of(scorer: InformationModel, sentence: str) -> list[float]:
    ids = [scorer.begin, *sentence.encode()]
    with torch.no_grad():
        logits = scorer.model(input_ids=torch.tensor([ids])).logits[0].double()
    return [-float(logits[place].log_softmax(-1)[byte]) for place, byte in enumerate(ids[1:])]


@pytest.mark.parametrize("unit", ["sentence", "phrase", "token"])
@pytest.mark.parametrize("keep", [0.65, 0.3])
def test_selective_context(unit: str, keep: float) -> None:
    scorer = informed()
    short = compress(f"selective-context:keep={keep},unit={unit}", TEXT, scorer=scorer)
    values = []
    number = 0
    for sentence in sentences(TEXT):
        nats = information_of(scorer, sentence)
        place = 0
        while place < len(sentence):
            # The units of a sentence tile it; a blank behind the last belongs to no token.
            unit_text = short.units[number]
            length = min(len(unit_text), len(sentence) - place)
            assert sentence[place : place + length] == unit_text[:length]
            values.append(sum(nats[place : place + length]) / length)
            place += length
            number += 1
    assert number == len(short.units)
    assert short.reduction.scores[0].tolist() == pytest.approx(values, rel=1e-5)
    limit = percentile(values, 100 * (1 - keep))
    kept = [n for n, value in enumerate(values) if value >= limit - 1e-9]
    assert list(short.kept) == kept
    between = " " if unit == "sentence" else ""
    assert short.text == between.join(short.units[n] for n in kept).strip()


def test_a_token_in_two_phrases_counts_for_both() -> None:
    """A language model whose second token reaches over a blank."""
    scorer = informed()
    spread = InformationModel(
        scorer.model, lambda text: [(ord(text[0]), 0, 1), (ord(text[1]), 1, len(text))], scorer.begin, scorer.positions
    )
    short = compress("selective-context:keep=0.5", "Blocks of files.", scorer=spread)
    nats, _ = spread.information("Blocks of files.", Run())
    assert short.units == ("Blocks ", "of ", "files.")
    wanted = [(nats[0].information + nats[1].information) / 2, nats[1].information, nats[1].information]
    assert short.reduction.scores[0].tolist() == pytest.approx(wanted)
