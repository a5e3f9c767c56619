"""Cache-Craft: its scores, reading with reused chunks against plain loops, the store, exact work, and byte-gpt."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import topsieve
from software.decoders import VOCABULARY, tiny_decoder
from topsieve.chunks.reader import ChunkReader
from topsieve.chunks.roles import ChunkPolicy
from topsieve.chunks.scores import (
    chunks_in_focus,
    context_influence,
    fix_share,
    order_penalty,
    prefix_overlap,
    recompute_count,
    recomputed,
)
from topsieve.chunks.store import ChunkStore, Variant
from topsieve.lowering import lower
from topsieve.methods import build
from topsieve.subjects.byte_gpt.model import load_byte_gpt
from topsieve.subjects.byte_gpt.text import reference
from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate
from topsieve_sim.errors import InputError
from topsieve_sim.trace.ops import ColumnSum, FeedForward, Gather, Merge, QueryKey, RowPick, TopK

NO_FOCUS = "cache-craft:focus=none"


def text(tokens: int, seed: int) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (tokens,), generator=torch.Generator().manual_seed(seed))


A, B, C, D, E = (text(length, seed) for seed, length in enumerate((6, 5, 7, 4, 6)))
QUESTION = text(3, 9)


def test_the_vector_of_the_specification():
    """Section 24."""
    influence = context_influence(0.02, 0.1)
    assert influence == pytest.approx(0.5498340, abs=5e-8)
    old = {"A": 0.4, "B": 0.3, "C": 0.2, "D": 0.1}
    overlap, penalty = prefix_overlap(old, "CAEB"), order_penalty("ABCD", "CAEB")
    assert overlap == pytest.approx(0.9)
    assert penalty == pytest.approx(2 / 3)
    share = fix_share(influence, overlap, penalty)
    assert share == pytest.approx(0.3848838, abs=5e-8)
    assert recompute_count(share, 100) == 39


@given(
    st.floats(0, 1),
    st.floats(0, 1),
    st.lists(st.sampled_from("ABCDEF"), unique=True),
    st.permutations("ABCDEF"),
    st.floats(0, 3),
)
@settings(max_examples=30, deadline=None)
def test_scores_stay_in_their_ranges(outside, inside, before, now, alpha):
    influence = context_influence(outside, inside)
    assert 0.5 <= influence <= 1
    masses = {chunk: outside * (index + 1) for index, chunk in enumerate(before)}
    assert prefix_overlap(masses, before) == pytest.approx(1)
    assert order_penalty(before, before) == 0
    assert order_penalty(before, before[::-1]) == (1 if len(before) > 1 else 0)
    penalty = order_penalty(before, now)
    assert 0 <= penalty <= 1
    assert 0 <= fix_share(influence, prefix_overlap(masses, now), penalty, alpha) <= 1
    assert fix_share(influence, 1, 0, alpha) == 0


def test_corners_and_ties():
    assert context_influence(0.1, 0) == 1
    assert context_influence(0, 0) == 0.5
    assert prefix_overlap({}, "A") == 1
    assert prefix_overlap({"A": 0.0}, "B") == 1
    assert recompute_count(0.07, 100, given=True) == 7, "0.07 x 100 is 7.000000000000001"
    assert recomputed(torch.tensor([1.0, 3.0, 1.0, 1.0]), 3).tolist() == [0, 1, 2]
    assert chunks_in_focus(torch.tensor([0.1, 0.6, 0.05, 0.25]), 0.9) == (0, 1, 3)
    assert chunks_in_focus(torch.tensor([0.5, 0.5]), 0.5) == (0,)


def plain(model, tokens):
    """Logits and probabilities [L, H, n, n] of a plain pass."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(input_ids=tokens[None], output_attentions=True, use_cache=True)
    model.set_attn_implementation("sdpa")
    return out.logits[0], torch.stack(out.attentions)[:, 0], out.past_key_values


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_what_is_stored_is_what_plain_attention_says(family):
    model = tiny_decoder(family)
    reader = ChunkReader(model, build(NO_FOCUS))
    read = reader.read([A, B, C], QUESTION)
    logits, attention, cache = plain(model, torch.cat([A, B, C, QUESTION]))
    # The eager code of transformers takes some models' softmax in single precision.
    assert (read.logits - logits[-3:]).norm() <= 1e-6 * logits.norm()
    (variant,) = reader.store.held[read.record.chunks[2].name]
    mean = attention.mean(1).double()
    edges = {"A": (0, 6), "B": (6, 11), "C": (11, 18)}
    outside, inside, sums, scores = [], [], {"A": [], "B": []}, [0.0] * 7
    for layer in mean:
        inter = {}
        for name in "AB":
            low, high = edges[name]
            inter[name] = sum(float(layer[u, v]) for u in range(11, 18) for v in range(low, high))
            sums[name].append(inter[name])
        outside.append(inter["A"] / (7 * 6) + inter["B"] / (7 * 5))
        inside.append(sum(float(layer[u, v]) for u in range(11, 18) for v in range(11, u + 1)) / 49)
        for u in range(7):
            scores[u] += sum(float(layer[11 + u, v]) for v in range(11)) / len(mean)
    a, b = sum(outside) / len(outside), sum(inside) / len(inside)
    assert variant.influence == pytest.approx(1 / (1 + math.exp(-a / b)), rel=1e-6)
    assert list(variant.attention.values()) == pytest.approx([sum(x) / len(x) for x in sums.values()], rel=1e-6)
    assert variant.token_scores.tolist() == pytest.approx(scores, rel=1e-6)
    for number, layer in enumerate(cache.layers):
        assert (variant.keys[number] - layer.keys[0, :, 11:18]).norm() <= 1e-6 * layer.keys.norm()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_same_prompt_again_computes_the_question_alone(family):
    model = tiny_decoder(family)
    reader = ChunkReader(model, build(NO_FOCUS))
    first = reader.read([A, B, C], QUESTION)
    again = reader.read([A, B, C], QUESTION)
    assert [len(use.recomputed) for use in again.record.chunks] == [0, 0, 0]
    assert again.record.queries == (3, 3, 3)
    assert (again.logits - first.logits).norm() <= 1e-12 * first.logits.norm()


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_computing_everything_again_is_a_plain_prompt(family):
    model = tiny_decoder(family)
    reader = ChunkReader(model, build(f"{NO_FOCUS},share=1"))
    reader.read([A, B, C, D], QUESTION)
    read = reader.read([C, D, E, A], QUESTION)
    assert [use.reused for use in read.record.chunks] == [True, True, False, True]
    fresh = ChunkReader(model, build(NO_FOCUS)).read([C, D, E, A], QUESTION)
    assert (read.logits - fresh.logits).norm() <= 1e-12 * fresh.logits.norm()
    following = torch.tensor([[7]])
    with torch.no_grad():
        ours = model(input_ids=following, past_key_values=read.cache).logits[0, -1]
        whole = model(input_ids=torch.cat([C, D, E, A, QUESTION, following[0]])[None]).logits[0, -1]
    assert (ours - whole).norm() <= 1e-12 * whole.norm()
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_reading_is_layers_over_stored_and_new_rows(share):
    """Llama by loops: stored keys turned from their place to the new one, rows computed again in theirs."""
    model = tiny_decoder("llama")
    reader = ChunkReader(model, build(f"{NO_FOCUS},share={share}"))
    reader.read([A, B, C], QUESTION)
    read = reader.read([C, E, B], QUESTION)
    old = reader.store.held
    prompt = [C, E, B, QUESTION]
    tokens = torch.cat(prompt)
    starts = [0, 7, 13, 18]
    rows, counts = [], [math.ceil(share * 7 - 1e-9), 6, math.ceil(share * 5 - 1e-9)]
    keys = torch.zeros(3, 2, 21, 8, dtype=torch.float64)
    values = keys.clone()
    for use, start, count in zip(read.record.chunks, starts, counts, strict=False):
        if use.name == read.record.chunks[1].name:
            rows += range(7, 13)
            continue
        variant = old[use.name][0]
        best = sorted(range(use.tokens), key=lambda u, v=variant: (-float(v.token_scores[u]), u))[:count]
        rows += [start + u for u in sorted(best)]
        for place in range(use.tokens):
            angle = (start - variant.start) * model.model.rotary_emb.inv_freq
            cosine, sine = angle.cos().double(), angle.sin().double()
            low, high = variant.keys[:, :, place, :4], variant.keys[:, :, place, 4:]
            keys[:, :, start + place] = torch.cat([low * cosine - high * sine, high * cosine + low * sine], -1)
            values[:, :, start + place] = variant.values[:, :, place]
    rows = sorted([*rows, 18, 19, 20])
    assert read.record.layers[0].rows.tolist() == rows
    with torch.no_grad():
        x = model.model.embed_tokens(tokens[rows])
        for number, layer in enumerate(model.model.layers):
            normed = layer.input_layernorm(x)
            q, k, v = (getattr(layer.self_attn, f"{n}_proj")(normed).unflatten(-1, (-1, 8)) for n in "qkv")
            out = torch.zeros(len(rows), 4, 8, dtype=torch.float64)
            for index, place in enumerate(rows):
                keys[number, :, place], values[number, :, place] = turned(model, k[index], place), v[index]
            for index, place in enumerate(rows):
                mine = turned(model, q[index], place)
                for head in range(4):
                    scores = keys[number, head // 2, : place + 1] @ mine[head] / 8**0.5
                    out[index, head] = scores.softmax(-1) @ values[number, head // 2, : place + 1]
            x = x + layer.self_attn.o_proj(out.flatten(1))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        wanted = model.lm_head(model.model.norm(x))[-3:]
    # Rotary tables are made in single precision.
    assert (read.logits - wanted).norm() <= 1e-6 * wanted.norm()


def turned(model, heads, place):
    angle = place * model.model.rotary_emb.inv_freq
    cosine, sine = angle.cos().double(), angle.sin().double()
    low, high = heads[:, :4], heads[:, 4:]
    return torch.cat([low * cosine - high * sine, high * cosine + low * sine], -1)


def test_a_foreign_prefix_asks_for_the_influence_and_more_for_more():
    model = tiny_decoder("llama")
    for alpha in (0.3, 0.6):
        reader = ChunkReader(model, build(f"{NO_FOCUS},alpha={alpha}"))
        reader.read([A, B, C], QUESTION)
        use = reader.read([D, E, C], QUESTION).record.chunks[2]
        (variant,) = reader.store.held[use.name]
        assert len(use.recomputed) == math.ceil(alpha * variant.influence * 7)
        assert use.recomputed.tolist() == sorted(use.recomputed.tolist())
        left = [u for u in range(7) if u not in use.recomputed.tolist()]
        assert variant.token_scores[use.recomputed].min() >= variant.token_scores[left].max()


def test_unattended_chunks_leave_the_later_layers():
    model = tiny_decoder("llama", layers=7)
    settings_ = "cache-craft:share=0.5,focus_from=1,focus_layers=2,focus_mass=0.3"
    reader = ChunkReader(model, build(settings_))
    reader.read([A, B, C], QUESTION)
    read = reader.read([C, E, B, A], QUESTION)
    decided = next(layer for layer in read.record.layers if layer.focus is not None)
    assert decided.layer >= 1
    gone = [use for index, use in enumerate(read.record.chunks) if use.reused and index not in decided.focus]
    assert gone
    after = read.record.layers[decided.layer + 1].rows.tolist()
    left = [row for row in decided.rows.tolist() if not any(use.start <= row < use.start + use.tokens for use in gone)]
    assert after == left
    assert set(range(7, 13)) <= set(after), "a new chunk has no other keys"
    assert read.logits.isfinite().all()
    trace = lower(read.record)
    assert [op.queries for op in trace.ops if isinstance(op, QueryKey)] == list(read.record.queries)
    assert [op.k for op in trace.ops if isinstance(op, TopK) and op.layer == decided.layer] == [len(decided.focus)]
    assert sum(isinstance(op, RowPick) for op in trace.ops) == 7


def variant(prefix: str, uses: int, share: float) -> Variant:
    return Variant(tuple(prefix), 0, *torch.zeros(2, 1), {"A": 1.0}, 0.6, torch.zeros(1), uses, share)


def test_the_store_gives_up_what_is_worth_least_and_takes_what_fits_best():
    store = ChunkStore(ChunkPolicy(variants=2, chunks=2))
    store.add("C", variant("A", 3, 0.5))
    store.add("C", variant("B", 1, 0.9))
    store.add("C", variant("D", 1, 1.0))
    assert [one.prefix for one in store.held["C"]] == [("A",), ("D",)]
    store.add("C", variant("D", 4, 1.0))
    assert [(one.prefix, one.uses) for one in store.held["C"]] == [(("A",), 3), (("D",), 4)]
    store.add("E", variant("A", 1, 1.0))
    store.add("F", variant("A", 1, 1.0))
    assert set(store.held) == {"C", "F"}
    best, share = store.best("C", ["A"])
    assert (best.prefix, share) == (("A",), 0.0)
    assert store.best("unknown", []) is None


@pytest.mark.parametrize("family", ["gpt2"])
def test_the_work_is_what_torch_counts(family):
    model = tiny_decoder(family, attention="eager")
    reader = ChunkReader(model, build("cache-craft:share=0.5"))
    reader.read([A, B, C], QUESTION)
    head = 2 * 32 * VOCABULARY
    with FlopCounterMode(display=False) as counter:
        record = reader.read([C, E, B], QUESTION).record
    rows = 4 + 6 + 3 + 3
    taps = 2 * 3 * rows * 21 * 3  # sums over three chunks, which the accelerator adds up beside the softmax
    trace = lower(record, operands=True)
    assert trace.flops == sum(counter.flop_counts["Global"].values()) - rows * head - taps
    choices = [(op.n, op.k) for op in trace.ops if isinstance(op, TopK)]
    assert choices == [(7, 4), (5, 3)]
    assert trace.operands[0, "scores"].shape == (1, 7)
    here = [op for op in trace.ops if op.layer == 1]
    assert [(op.rows, op.width) for op in here if isinstance(op, Gather)] == [(12, 64)]
    assert [(op.rows, op.cols) for op in here if isinstance(op, ColumnSum)] == [(rows, 21)]
    assert [(op.rows, op.cols) for op in here if isinstance(op, RowPick)] == [(3, 21)]
    assert [(op.queries, op.keys, op.causal) for op in here if isinstance(op, QueryKey)] == [(rows, 21, False)]
    assert [op.tokens for op in here if isinstance(op, FeedForward)] == [rows]
    assert not [op for op in trace.ops if isinstance(op, Merge)], "learned positions are not turned"
    assert trace.notes
    assert simulate(trace, load_config("spatten")).cycles > 0


def test_turned_keys_and_suffixes_in_the_trace():
    reader = ChunkReader(tiny_decoder("llama"), build(f"{NO_FOCUS},share=0"))
    reader.read([A, B, C], QUESTION)
    same, moved = (lower(reader.read(chunks, QUESTION).record) for chunks in ([A, B, C], [A, C, B]))
    assert [op.causal for op in same.ops if isinstance(op, QueryKey)] == [True] * 3
    assert not same.notes
    assert [(op.sources, op.targets) for op in moved.ops if isinstance(op, Merge)] == [(24, 12)] * 3


def test_byte_gpt_on_real_text_comes_closer_the_more_is_computed_again():
    """Three 48-byte chunks of the Python reference in another order; the next bytes' scores against a plain pass, nats."""
    model = load_byte_gpt()
    content = reference(held_out=True)
    shares = (0.0, 0.3, 0.7, 1.0)
    distance, queries = dict.fromkeys(shares, 0.0), {}
    for start in range(0, 1600, 400):
        a, b, c, question = (torch.tensor(list(content[start + 48 * i : start + 48 * i + 48])) for i in range(4))
        before = ChunkReader(model, build(NO_FOCUS))
        before.read([b, c, a], question)
        whole = ChunkReader(model, build(NO_FOCUS)).read([a, b, c], question).logits.log_softmax(-1)
        for share in shares:
            reader = ChunkReader(model, build(f"{NO_FOCUS},share={share}"))
            reader.store = before.store
            read = reader.read([a, b, c], question)
            difference = whole - read.logits.log_softmax(-1)
            distance[share] += float((whole.exp() * difference).sum(-1).mean())
            queries[share] = read.record.queries[0]
    assert distance[1.0] < 1e-6 < distance[0.7] < distance[0.3] < distance[0.0]
    assert queries == {0.0: 48, 0.3: 93, 0.7: 150, 1.0: 192}


def test_what_cannot_be_is_refused():
    model = tiny_decoder("llama")
    with pytest.raises(InputError, match="ChunkReader"):
        topsieve.reduce(model, "cache-craft")
    with pytest.raises(InputError, match="at least one token"):
        ChunkReader(model, build("cache-craft")).read([A, A[:0]], QUESTION)
