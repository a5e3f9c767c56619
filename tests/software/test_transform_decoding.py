"""Transforms that decode write what their specification says: mostly the very text of greedy decoding."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from topsieve.subjects.byte_gpt import text
from topsieve.transforms import copyspec, eqspec, r2r, simpletool, simultaneous, token_recycling, uscd
from topsieve.transforms.decoder import byte_decoder, prompts
from topsieve.transforms.token_recycling import PUBLISHED_TREE
from topsieve.transforms.tree import Tree


@pytest.fixture(scope="module")
def decoder():
    return byte_decoder()


@pytest.fixture(scope="module")
def greedy(decoder):
    """Prompts, and what plain decoding writes behind each."""
    return [(prompt, decoder.greedy(prompt, 40)) for prompt in prompts(2, 96, 1)]


@st.composite
def trees(draw) -> Tree:
    """Random trees: each node's children are numbered when the node's turn comes."""
    children: list[int] = []
    nodes = 1
    while len(children) < nodes and nodes < 20:
        children.append(draw(st.integers(0 if children else 1, 3)))
        nodes += children[-1]
    return Tree(tuple(children))


def test_published_tree():
    # Specification `methods-text`, section 24.
    assert PUBLISHED_TREE.nodes == 81
    assert np.bincount(PUBLISHED_TREE.depths).tolist() == [1, 8, 21, 25, 15, 8, 3]
    assert len(PUBLISHED_TREE.paths) == 40
    assert PUBLISHED_TREE.mask.sum() == 324


@given(trees())
def test_mask_of_a_tree_is_its_ancestors(tree):
    for node in range(tree.nodes):
        chain, up = {node}, node
        while (up := int(tree.parents[up])) >= 0:
            chain.add(up)
        assert set(np.flatnonzero(tree.mask[node])) == chain
        assert tree.depths[node] == len(chain) - 1
        # Breadth-first order: a causal trace of the tree sees every ancestor.
        assert max(chain) == node
    siblings = {(int(p), int(r)) for p, r in zip(tree.parents, tree.ranks, strict=True)}
    assert len(siblings) == tree.nodes


@given(trees(), st.data())
def test_verification_finds_the_longest_agreeing_path(tree, data):
    tokens = np.array(data.draw(st.lists(st.integers(0, 1), min_size=tree.nodes, max_size=tree.nodes)))
    picked = np.array(data.draw(st.lists(st.integers(0, 1), min_size=tree.nodes, max_size=tree.nodes)))
    agrees = [True] * tree.nodes
    for node in range(1, tree.nodes):
        agrees[node] = agrees[tree.parents[node]] and tokens[node] == picked[tree.parents[node]]
    path = token_recycling.verify(tokens, picked, tree)
    assert all(agrees[node] for node in path)
    assert len(path) - 1 == max(depth for depth, ok in zip(tree.depths, agrees, strict=True) if ok)


def test_later_nodes_overwrite_earlier_ones():
    adjacency = np.zeros((4, 2), np.int64)
    token_recycling.update(adjacency, np.array([1, 3, 1]), np.array([[0, 1], [2, 2], [3, 0]]))
    assert adjacency.tolist() == [[0, 0], [3, 0], [0, 0], [2, 2]]


def test_token_recycling_is_greedy_decoding(decoder, greedy):
    adjacency = np.zeros((256, 8), np.int64)
    for prompt, wanted in greedy:
        written, steps = token_recycling.decode(decoder, prompt, len(wanted), adjacency, PUBLISHED_TREE)
        assert written == wanted
        # Else nothing of the tree would have been tried.
        assert max(step.accepted for step in steps) > 2
        assert sum(step.accepted for step in steps) >= len(wanted)
        assert [b.keys - a.keys for a, b in pairwise(steps)] == [s.accepted for s in steps[:-1]]


@given(st.integers(1, 3), st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=6))
def test_copied_draft_is_what_followed_the_first_match(window, parts):
    matches = copyspec.Matches(window)
    before = 0
    for part in parts:
        before = len(matches.text) or len(part)
        matches.append(part)
    whole = matches.text
    last = whole[-window:]
    places = [i for i in range(before - window + 1) if whole[i : i + window] == last and len(last) == window]
    wanted = whole[places[0] + window :][:4] if places else []
    assert matches.draft(4) == wanted


def test_copyspec_is_greedy_decoding(decoder, greedy):
    for prompt, wanted in greedy:
        written, steps = copyspec.decode(decoder, prompt, len(wanted), window=3, copied=10)
        assert written == wanted
        assert max(accepted for _, accepted in steps) > 0
        assert all(accepted <= drafted <= 10 for drafted, accepted in steps)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=5))
def test_accepted_tokens_are_the_targets(pairs):
    drafted, picked = ([pair[side] for pair in pairs] for side in (0, 1))
    got = eqspec.accept(drafted, picked)
    # Behind a correct prefix every pick is the target's own.
    assert got == picked[: len(got)]
    assert len(got) == len(pairs) or drafted[len(got) - 1] != picked[len(got) - 1]


def test_a_pool_gives_rows_of_one_length_where_it_can():
    rows = [eqspec.Row(number, [0] * length, 1) for number, length in enumerate((3, 4, 3, 4, 4, 5))]
    assert [row.number for row in eqspec.choose(rows, 2)] == [0, 2]
    assert [row.number for row in eqspec.choose(rows, 3)] == [1, 3, 4]
    assert [row.number for row in eqspec.choose(rows, 4)] == [0, 1, 2, 3]


@pytest.mark.parametrize("window", [0, 4])
def test_batches_write_what_single_requests_write(decoder, window):
    texts = [prompts(1, 40 + 7 * number, number)[0] for number in range(4)]
    rows, steps, moved = eqspec.decode(decoder, decoder.shallow(3), texts, 16, most=4, batch=2, window=window)
    assert [row.text for row in rows] == [prompt + decoder.greedy(prompt, 16) for prompt in texts]
    assert 0 < moved <= steps
    for row in rows:
        verified = [item for item in row.passes if item.shape == decoder.shape and item.step]
        assert all(item.queries <= 5 for item in verified)


def test_router_that_always_or_never_calls(decoder, greedy):
    small = decoder.shallow(3)
    prompt, wanted = greedy[0]
    always, calls = r2r.decode(small, decoder, prompt, 24, lambda _: True, 100)
    assert always == wanted[:24]
    assert calls == [(0, len(prompt)), *((place, 1) for place in range(1, 24))]
    never, calls = r2r.decode(small, decoder, prompt, 24, lambda _: False, 100)
    assert never == small.greedy(prompt, 24)
    assert calls == []


def test_routed_tokens_are_the_large_models(decoder, greedy):
    prompt, _ = greedy[0]
    answers = iter([False, True] * 8)
    tokens, calls = r2r.decode(decoder.shallow(2), decoder, prompt, 16, lambda _: next(answers), 50)
    assert [place for place, _ in calls] == list(range(1, 16, 2))
    assert calls[0][1] == len(prompt) + 1
    for place, _ in calls:
        assert tokens[place] == decoder.greedy([*prompt, *tokens[:place]], 1)[0]


def test_router_learns_where_the_models_differ(decoder):
    torch.manual_seed(0)
    small = decoder.shallow(3)
    config = r2r.R2R(hidden=32, training_steps=30)
    windows = prompts(24, 64, 0, content=text.reference(held_out=False))
    router = r2r.trained_router(small, decoder, windows, config)
    ids = torch.tensor(prompts(8, 64, 5))
    states, logits = small.hidden(ids, small.fresh())
    differ = decoder.forward(ids, decoder.fresh()).argmax(-1) != logits.argmax(-1)
    with torch.inference_mode():
        asked = router(r2r.features(small, states, logits, config.top))
    assert float(asked[differ].mean()) > float(asked[~differ].mean()) + 0.5


def test_heads_write_what_each_writes_alone(decoder):
    (call,) = simpletool.calls(1, 96, 5, 3)
    written, steps = simpletool.decode(decoder, call.prompt, call.heads, 6, None)
    assert written == [decoder.greedy([*call.prompt, *head], 6) for head in call.heads]
    assert steps == 6
    stop = written[0][2]
    stopped, _ = simpletool.decode(decoder, call.prompt, call.heads, 6, stop)
    assert stopped == [row[: row.index(stop)] if stop in row else row for row in written]


def test_calls_hold_their_answers():
    for call in simpletool.calls(3, 80, 4, 0):
        prompt = bytes(call.prompt)
        assert len(prompt) == 80
        for (question, key), answer in zip(call.heads, call.answers, strict=True):
            assert question == ord("?")
            assert bytes((ord("@"), key, answer)) in prompt


def test_contrast_toy_vector():
    # Specification `methods-text`, section 24.
    standard, lame = torch.tensor([0.4, 0.3, 0.2, 0.1]), torch.tensor([0.7, 0.1, 0.1, 0.1])
    assert standard.std(unbiased=True).item() == pytest.approx(0.1291, abs=5e-5)
    scores, used = uscd.contrast(standard, lame, deviation=0.2)
    assert used
    assert scores.exp().tolist() == pytest.approx([0, 0.23, 0.13, 0.03], abs=1e-6)
    assert scores[0] == -math.inf
    scores, _ = uscd.contrast(standard, lame, deviation=0.2, plausible=2 / 3)
    assert scores.exp().tolist() == pytest.approx([0, 0.23, 0.13, 0], abs=1e-6)
    scores, used = uscd.contrast(standard, lame, deviation=0.1)
    assert not used
    assert scores.exp().tolist() == pytest.approx(standard.tolist(), abs=1e-6)


def test_contrast_never_asked_is_greedy_decoding(decoder, greedy):
    prompt, wanted = greedy[0]
    tokens, used = uscd.decode(decoder, prompt, prompt[::-1], 12, deviation=0.0)
    assert tokens == wanted[:12]
    assert used == 0
    tokens, used = uscd.decode(decoder, prompt, prompt[::-1], 12, deviation=1.0, weights=(1.0, 0.0))
    assert tokens == wanted[:12]
    assert used == 12


def test_untied_prompts_drift_apart(decoder):
    """Published: the lame prompt writes its own text, which matters only once something is contrasted."""
    for tied in (True, False):
        rule = {"deviation": 0.045, "weights": (1.0, -0.5)}
        standard, lame, _ = uscd.Uscd(sequences=1).questions()[0]
        tokens, used = uscd.decode(decoder, standard, lame, 12, tied=tied, **rule)
        texts, wanted, contrasted = [list(standard), list(lame)], [], 0
        for _ in range(12):
            shares = [
                decoder.forward(torch.tensor([row]), decoder.fresh())[0, -1].double().softmax(-1) for row in texts
            ]
            scores, here = uscd.contrast(*shares, **rule)
            wanted.append(int(scores.argmax()))
            contrasted += here
            texts[0].append(wanted[-1])
            texts[1].append(wanted[-1] if tied or here else int(shares[1].argmax()))
        assert (tokens, used) == (wanted, contrasted)
        assert (texts[0][-12:] == texts[1][-12:]) == tied
        assert 0 < used < 12


def test_lame_prompts_lack_the_notes():
    for standard, lame, answer in uscd.Uscd(sequences=5).questions():
        assert len(standard) == len(lame) == 194
        assert standard[-2:] == lame[-2:]
        assert bytes((ord("@"), standard[-1], answer)) in bytes(standard)
        assert ord("@") not in lame


def test_relaxed_agreement():
    unanimous = [["a", "b", "c"]] * 5
    assert simultaneous.agreed(unanimous, 0.6, dropping=False)[0] == ["a", "b", "c"]
    # int(5 x 0.6) = 3 of 5 are enough, 2 are not.
    beams = [["a", "x"], ["a", "b", "c"], ["a", "b", "c"], ["a", "b", "d"], ["z", "b", "d"]]
    words, holder = simultaneous.agreed(beams, 0.6, dropping=False)
    assert words == ["a", "b"]
    assert beams[holder][:2] == words
    # Once the others are dropped, int(3 x 0.6) = 1 is enough.
    words, holder = simultaneous.agreed(beams, 0.6, dropping=True)
    assert words == ["a", "b", "c"]
    assert beams[holder] == words
    assert simultaneous.agreed([["a"], ["b"], ["c"], ["d"], ["e"]], 0.6, dropping=True)[0] == []


def test_beams_are_the_likeliest_continuations(decoder):
    """With as many beams as tokens a search of two tokens is exhaustive; fewer beams keep its order."""
    prompt = prompts(1, 8, 0)[0]
    cache = decoder.fresh()
    found, likely = simultaneous.beam_search(decoder, cache, prompt, 256, 2)
    logits = decoder.forward(torch.tensor([[*prompt, token] for token in range(256)]), decoder.fresh()).double()
    first, second = logits[0, -2].log_softmax(-1), logits[:, -1].log_softmax(-1)
    best = int((first[:, None] + second).argmax())
    assert found[0].tolist() == [best // 256, best % 256]
    assert float(likely[0]) == pytest.approx(float((first[:, None] + second).max()), abs=1e-5)
    assert (likely.diff() <= 0).all()
    assert cache.layers[0].keys.shape[:1] == (256,)
    narrow, _ = simultaneous.beam_search(decoder, decoder.fresh(), prompt, 1, 6)
    assert narrow[0].tolist() == decoder.greedy(prompt, 6)


def test_beams_end_at_the_mark(decoder):
    """Against all texts of up to two tokens before the mark: with as many beams as tokens the search is exhaustive."""
    prompt, stop = prompts(1, 8, 0)[0], 32
    found, likelihood, steps = simultaneous.beam_search_until(decoder, decoder.fresh(), prompt, 256, stop, 2)
    logits = decoder.forward(torch.tensor([[*prompt, token] for token in range(256)]), decoder.fresh()).double()
    first, second = logits[0, -2].log_softmax(-1), logits[:, -1].log_softmax(-1)
    ends = {(): float(first[stop])}
    for token in range(256):
        if token != stop:
            ends[token,] = float(first[token] + second[token, stop]) / 2
            ends |= {
                (token, other): float(first[token] + second[token, other]) / 2 for other in range(256) if other != stop
            }
    best = max(ends, key=lambda text: ends[text])
    assert (tuple(found), steps) == (best, 1)
    assert likelihood == pytest.approx(ends[best], abs=1e-5)
    greedy = decoder.greedy(prompt, 40)
    single, _, steps = simultaneous.beam_search_until(decoder, decoder.fresh(), prompt, 1, stop, 40)
    assert steps >= len(single)
    assert single == greedy[: len(single)]


def test_the_model_decides_to_read_or_to_write(decoder):
    source = simultaneous.chunks(prompts(1, 200, 4)[0], 3)[2:8]
    config = simultaneous.Simultaneous(policy="east", beams=2, slack=3)
    kept, anew = (simultaneous.deciding(decoder, source, replace(config, reuse=reuse)) for reuse in (True, False))
    assert [(read.written, read.steps) for read in kept] == [(read.written, read.steps) for read in anew]
    assert [read.ran for read in anew] == [read.prompt for read in kept]
    text, waiting = list(b"Translate with low latency.\n"), 0
    reads, written = iter(kept), []
    for number, chunk in enumerate(source):
        text += [32] * bool(waiting) + chunk[:-1]
        read, waiting = next(reads), waiting + 3
        assert (read.prompt, read.steps) == (len(text), 0)
        if decoder.greedy(text, 1) == [10] or number == len(source) - 1:
            text.append(10)
            write = next(reads)
            assert (write.prompt, write.ran) == (len(text), 1)
            assert len(write.written) <= 2 * (waiting + 3)
            assert 10 not in write.written
            text += [*write.written, 10]
            written.append(number)
            waiting = 0
    assert next(reads, None) is None
    assert 1 < len(written) < len(source), "else it would not have decided"
    outcome = replace(config, sequences=1, reads=4).run()
    assert outcome.changed.query_rows < outcome.plain.query_rows


def test_kept_cache_writes_what_reading_anew_writes(decoder):
    source = simultaneous.chunks(prompts(1, 120, 0)[0], 3)[:4]
    kept, anew = (
        simultaneous.interleaved(decoder, source, simultaneous.Simultaneous(most=16, beams=5, reuse=reuse))
        for reuse in (True, False)
    )
    assert [read.written for read in kept] == [read.written for read in anew]
    # Single precision in another order of sums; a token more or less in the cache is a thousand times as much.
    assert [read.likelihood for read in kept] == pytest.approx([read.likelihood for read in anew], abs=1e-4)
    # Else the whole cache would be kept and nothing cut.
    assert any(0 < len(read.written) < 15 for read in kept[:-1])
    assert [read.prompt for read in kept] == [read.prompt for read in anew] == [read.ran for read in anew]
    assert all(read.ran < read.prompt for read in kept[1:])
