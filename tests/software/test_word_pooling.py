"""Learn Your Tokens: the model against its text with torch's own layers, what a word sees, its work, and real text."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from topsieve.compaction.word_pooling import (
    WordModel,
    WordModelSizes,
    padded_words,
    spelling_loss,
    words_of,
)
from topsieve.compaction.word_work import character_trace, generated_trace, read_trace
from topsieve.subjects.byte_gpt.text import reference
from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate
from topsieve_sim.trace.ops import QueryKey

# Handing such small tensors to other threads costs more than the work.
torch.set_num_threads(1)

SIZES = WordModelSizes(vocabulary=41, prefix=3, canvas=7, words=6, layers=2, heads=4, width=32, encoder_hidden=48)


def model(variant: str, seed: int = 0) -> WordModel:
    torch.manual_seed(seed)
    made = WordModel(SIZES, variant=variant).double().eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    return made


def text(seed: int = 0, batch: int = 2, words: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, SIZES.canvas + 1, (batch, words), generator=generator)
    characters = torch.randint(1, SIZES.vocabulary, (batch, words, SIZES.canvas), generator=generator)
    return characters * (torch.arange(SIZES.canvas) < lengths.unsqueeze(-1)), lengths


def torch_layer(block) -> nn.TransformerEncoderLayer:
    """The same layer by torch's own class."""
    layer = nn.TransformerEncoderLayer(
        SIZES.width,
        block.heads,
        block.up.out_features,
        activation=nn.functional.relu
        if not block.normed_first
        else lambda x: nn.functional.gelu(x, approximate="tanh"),
        norm_first=block.normed_first,
        batch_first=True,
    ).double()
    ours = block.state_dict()
    names = {"self_attn.in_proj_": "qkv.", "self_attn.out_proj.": "out.", "linear1.": "up.", "linear2.": "down."}
    names |= {"norm1.": "norm_attention.", "norm2.": "norm_ffn."}
    layer.load_state_dict({a + end: ours[b + end] for a, b in names.items() for end in ("weight", "bias")})
    return layer.eval()


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_the_model_is_the_text_s_word_by_word(variant):
    """Section 10 with loops over words: ids, positions, who sees whom, the canvas of the speller."""
    ours = model(variant)
    characters, lengths = text()
    p, c0, c = SIZES.prefix, SIZES.canvas, SIZES.places
    wanted = torch.empty(2, 4, c0, SIZES.vocabulary, dtype=torch.float64)
    with torch.no_grad():
        for row in range(2):
            embedded, vectors = [], []
            for word in range(5):
                first = c0 if variant == "official" else SIZES.vocabulary
                ids = [*range(first, first + p), *characters[row, word].tolist()]
                e = torch.stack([ours.embedding.weight[i] + ours.inside[place] for place, i in enumerate(ids)])
                embedded.append(e)
                end = int(lengths[row, word]) + p
                if variant == "official":
                    pad = [place > end for place in range(c)]
                    seen_not = torch.tensor([[i and j for j in pad] for i in pad])
                else:
                    seen_not = torch.tensor([[place >= end for place in range(c)]] * c)
                x = e[None]
                for block in ours.encoder:
                    x = torch_layer(block)(x, src_mask=seen_not)
                vectors.append(x[0, :p])
            x = (torch.cat(vectors) + ours.between[: 5 * p])[None]
            for block in ours.model:
                x = torch_layer(block)(x, src_mask=torch.ones(5 * p, 5 * p).triu(1).bool())
            n = ours.norm(x)[0]
            for word in range(1, 5):
                canvas = embedded[word].clone()
                canvas[:p] = n[(word - 1) * p : word * p]
                if variant == "official":
                    canvas += ours.inside
                else:
                    canvas[:p] += ours.inside[:p]
                x = canvas[None]
                for block in ours.speller:
                    x = torch_layer(block)(x, src_mask=torch.ones(c, c).triu(1).bool())
                wanted[row, word - 1] = x[0, p - 1 : c - 1] @ ours.head.weight.T
        given = lengths.clone()
        found = ours(characters, lengths)
    assert lengths.equal(given), "the published code adds p to its argument"
    assert found.shape == wanted.shape
    assert (found - wanted).norm() <= 1e-12 * wanted.norm()


def test_only_the_paper_s_words_do_not_see_padding():
    characters, lengths = text(3)
    garbage = characters.masked_fill(characters == 0, 9)
    for variant, same in (("paper", True), ("official", False)):
        ours = model(variant)
        with torch.no_grad():
            vectors = [ours.word_vectors(ours.embedded(x), lengths) for x in (characters, garbage)]
        assert vectors[0].equal(vectors[1]) == same


def test_no_word_sees_a_later_one_and_spelling_is_what_the_scores_say():
    ours, (characters, lengths) = model("paper"), text(1)
    changed = characters.clone()
    changed[:, 3] = (changed[:, 3] + 1) % SIZES.vocabulary
    with torch.no_grad():
        before, after = ours(characters, lengths), ours(changed, lengths)
        assert before[:, :2].equal(after[:, :2])
        assert not before[:, 3].equal(after[:, 3])
        word = ours.next_word(characters[:, :4], lengths[:, :4])
        teacher = torch.cat([characters[:, :4], word.unsqueeze(1)], dim=1)
        told = ours(teacher, torch.cat([lengths[:, :4], lengths[:, :1]], dim=1))[:, -1]
    assert told.argmax(-1).equal(word)


def test_the_work_is_what_torch_counts():
    ours, (characters, lengths) = model("official"), text()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        ours(characters, lengths)
    trace = read_trace(SIZES, words=5, sequences=2)
    assert trace.flops == sum(counter.flop_counts["Global"].values())
    keys = {(op.layer, op.queries, op.keys, op.heads) for op in trace.ops if isinstance(op, QueryKey)}
    assert keys == {(0, 10, 10, 20), (1, 10, 10, 20), (2, 15, 15, 4), (3, 15, 15, 4), (4, 10, 10, 16), (5, 10, 10, 16)}
    assert simulate(trace, load_config("spatten")).cycles > 0
    new = generated_trace(SIZES, words=5, new_words=3)
    model_keys = [(op.step, op.queries, op.keys) for op in new.ops if isinstance(op, QueryKey) and op.layer == 2]
    assert model_keys == [(0, 15, 15), (1, 3, 18), (2, 3, 21)]
    spelling = [op.keys for op in new.ops if isinstance(op, QueryKey) and op.layer == 5 and op.step == 2]
    assert spelling == list(range(3, 10))


def test_pooling_pays_only_with_few_vectors_a_word():
    """The Python reference has 5 bytes a word and the blank: 1 vector a word shortens the model, 4 hardly do."""
    words = words_of(reference(held_out=True)[:2000], canvas=12)
    text_bytes = sum(map(len, words)) + len(words)
    sizes = [WordModelSizes(257, prefix=p, layers=24, width=512) for p in (1, 4)]
    pooled = [read_trace(one, len(words)).flops for one in sizes]
    assert pooled[0] < 0.5 * character_trace(sizes[0], text_bytes).flops
    assert pooled[0] < 0.5 * pooled[1]


def test_it_learns_to_spell_real_text():
    """Forty steps on the Python reference: better on held-out words than the shares of the characters, place by place."""
    sizes = WordModelSizes(257, prefix=1, canvas=8, words=24, layers=2, heads=2, width=48, encoder_hidden=64)
    torch.manual_seed(0)
    ours = WordModel(sizes, dropout=0.0)
    optimiser = torch.optim.AdamW(ours.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0.1)
    words = words_of(reference(held_out=False)[:200_000], sizes.canvas)
    generator = torch.Generator().manual_seed(0)
    characters, lengths = padded_words(words, sizes.canvas)
    for _ in range(40):
        start = torch.randint(0, len(words) - 24, (8, 1), generator=generator) + torch.arange(24)
        spelling_loss(ours(characters[start], lengths[start]), characters[start]).backward()
        optimiser.step()
        optimiser.zero_grad()
    unseen, ends = padded_words(words_of(reference(held_out=True), sizes.canvas)[: 24 * 10], sizes.canvas)
    rows = unseen.reshape(10, 24, -1)
    with torch.no_grad():
        loss = float(spelling_loss(ours(rows, ends.reshape(10, 24)), rows))
    shares = [Counter(characters[:, place].tolist()) for place in range(sizes.canvas)]
    told = [
        -math.log((share[int(x)] + 1) / (len(words) + 257))
        for place, share in enumerate(shares)
        for x in rows[:, 1:, place].flatten()
    ]
    assert loss < sum(told) / len(told)
