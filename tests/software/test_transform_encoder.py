"""Transforms of encoders: the decoder's mask, word scores and losses, adapters, transplanted embeddings on MiniLM."""

from __future__ import annotations

import keyword

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from topsieve.transforms import dupmae
from topsieve.transforms.adapters import IGNORED, KINDS, Adapter, adapted, kinds, labelled
from topsieve.transforms.bpe import Bpe
from topsieve.transforms.encoder import embedded, minilm, states
from topsieve.transforms.tokenadapt import PADDED_TO, TokenAdapt


@given(st.integers(1, 40), st.sampled_from([0.0, 0.3, 0.5, 0.9]), st.integers(0, 3))
def test_decoder_never_sees_its_own_position(tokens, ratio, seed):
    seen = dupmae.visibility(tokens, ratio, torch.Generator().manual_seed(seed))
    assert seen.shape == (tokens, tokens + 1)
    assert seen[:, 0].all()
    assert not seen[:, 1:].diagonal().any()
    assert (seen[:, 1:].sum(1) == int((tokens - 1) * (1 - ratio))).all()


def test_mask_rows_come_again_after_256():
    seen = dupmae.visibility(300, 0.5, torch.Generator().manual_seed(0))
    assert len({tuple(row.tolist()) for row in seen[: dupmae.PATTERNS, 1:]}) == dupmae.PATTERNS
    # Equal draws but for the own positions of the two rows, which change one other place at most.
    assert int((seen[7] != seen[7 + dupmae.PATTERNS]).sum()) <= 4


def test_decoder_attention_by_hand():
    torch.manual_seed(0)
    sentence, positions, tokens = torch.randn(8), torch.randn(5, 8), torch.randn(5, 8)
    visible = dupmae.visibility(5, 0.5, torch.Generator().manual_seed(1))
    found = dupmae.decoded(sentence, positions, tokens, visible, heads=2)
    known = torch.cat((sentence[None], tokens))
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        for row in range(5):
            scores = (sentence + positions[row])[part] @ known[:, part].T / 2
            weights = scores.masked_fill(~visible[row], -torch.inf).softmax(-1)
            assert torch.allclose(found[row, part], weights @ known[:, part], atol=1e-6)


def test_word_scores():
    logits = torch.tensor([[1.0, 5, 2], [3.0, 0, 2], [9.0, 9, 9]])
    scores = dupmae.lexical(logits, torch.tensor([True, True, False]))
    assert scores.tolist() == [3, 5, 2]
    assert dupmae.lexical(logits, torch.zeros(3, dtype=torch.bool)).tolist() == [dupmae.MASKED] * 3
    assert dupmae.strongest(torch.tensor([2.0, 3, 3, 1]), 1).tolist() == [0, 3, 0, 0]
    # A word that comes twice counts once.
    wanted = -scores.log_softmax(-1)[[0, 2]].mean()
    assert dupmae.word_loss(scores, [2, 0, 2, 2]) == pytest.approx(float(wanted))


def test_fresh_adapters_change_nothing_and_leave_nothing():
    model = minilm().model
    rows = minilm().tokens(["A list is a loop's friend."])
    before = states(rows)[0]
    adapters = [Adapter(model.config.hidden_size, 4) for _ in model.encoder.layer]
    with adapted(model.encoder.layer, adapters):
        assert torch.equal(states(rows)[0], before)
        torch.nn.init.ones_(adapters[2].up.bias)
        assert not torch.allclose(states(rows)[0], before, atol=1e-3)
    assert torch.equal(states(rows)[0], before)


def test_kinds_of_tokens():
    source = "if x_1 >= 2.5:  # far\n    print('a\\n', not x_1)\n"
    found = [(source[start:end], KINDS[index]) for start, end, index in kinds(source)]
    assert found[:6] == [
        ("if", "keyword"), ("x_1", "name"), (">=", "operator"), ("2.5", "number"), (":", "operator"), ("# far", "comment"),
    ]  # fmt: skip
    assert ("'a\\n'", "string") in found
    assert all((kind == "keyword") == keyword.iskeyword(text) for text, kind in found)


def test_sub_tokens_have_the_kind_of_their_token():
    ids, labels = labelled("def transform(value):\n    return value + 12345\n" * 3, 8)
    assert ids.shape == labels.shape
    assert ids.shape[1] == 8
    pieces = minilm().tokenizer.convert_ids_to_tokens(ids.flatten().tolist())
    named = [
        (piece, KINDS[label])
        for piece, label in zip(pieces, labels.flatten().tolist(), strict=True)
        if label != IGNORED
    ]
    assert ("def", "keyword") in named
    assert ("+", "operator") in named
    assert {kind for piece, kind in named if piece.isdigit() or piece.startswith("##3")} <= {"number"}


def test_shared_tokens_are_copied_and_others_mixed():
    encoding = Bpe((" ", *"abcdefghijklmnopqrstuvwxyz"), ((" ", "a"), ("o", "f"), (" ", "of"), (" of", " a")))
    vocabulary = encoding.vocabulary
    tokenizer, model = minilm().tokenizer, minilm().model
    old = model.embeddings.word_embeddings.weight.detach()
    known = tokenizer.get_vocab()
    method = TokenAdapt()
    used = [vocabulary.index(text) for text in (" a", "b", " of", " of a")]
    table, copied, mixed = method.transplanted(encoding, used, [known["of"], known["a"], known["list"]])
    assert len(table) % PADDED_TO == 0
    assert copied == used[:3]
    assert mixed == used[3:]
    assert torch.equal(table[used[0]], old[known["a"]])
    assert torch.equal(table[used[1]], old[known["##b"]])
    assert torch.equal(table[used[2]], old[known["of"]])
    # "of a" lies in the cone of the pieces and the neighbours: here the same three rows.
    basis = old[[known["of"], known["a"], known["list"]]].double()
    weights = torch.linalg.lstsq(basis.T, table[used[3]].double()).solution
    assert torch.allclose(weights @ basis, table[used[3]].double(), atol=1e-6)
    assert float(weights.sum()) == pytest.approx(1, abs=1e-5)
    assert (weights > -1e-6).all()
    assert torch.equal(table[len(vocabulary)], old[tokenizer.cls_token_id])


def test_own_embeddings_change_nothing():
    rows = minilm().tokens(["A list of lists.", "The loop ends."])
    table = minilm().model.embeddings.word_embeddings.weight.detach()
    assert torch.allclose(embedded(rows), embedded(rows, table), atol=1e-6)
