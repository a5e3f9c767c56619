"""SkipDecode: its schedule, the tokens it lets through the layers, what it holds and what it is lowered to."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import topsieve
from software.decoders import VOCABULARY, tiny_decoder
from topsieve.cache.layer_budget import LayerBudget
from topsieve.methods import build
from topsieve.reduction import ModelShape
from topsieve.subjects.byte_gpt.model import load_byte_gpt
from topsieve.subjects.byte_gpt.text import reference
from topsieve.subjects.decoding import decode
from topsieve_sim.errors import InputError
from topsieve_sim.trace.ops import Projection, QueryKey

PROMPT, GIVEN = 9, 6


def opt(layers: int = 24) -> ModelShape:
    return ModelShape("opt", "gpt2", layers, 32, 32, 64, 2048, 8192)


def test_the_vectors_of_the_specification():
    """Section 24: 24 layers, one of warm-up, 16 to 8 from position 100 to 199."""
    budget = LayerBudget(16, 8, warm_up=1, max_length=200)
    for position, count, first in ((100, 16, 9), (101, 16, 9), (112, 15, 10), (150, 12, 13), (199, 8, 17)):
        assert budget.executed(position, 100, 24) == (0, *range(first, 24))
        assert budget.count(position, 100, 24) == count
    assert sum(budget.count(position, 100, 24) for position in range(100, 200)) == 1200
    assert budget.executed(99, 100, 24) == tuple(range(24))
    assert LayerBudget(16, 8, whole_prompt=False).executed(99, 100, 24) == budget.executed(100, 100, 24)


def test_speedup_is_the_paper_s_range():
    budget = build("skipdecode:speedup=2").cache(opt()).layers
    assert (budget.most, budget.least) == (16, 8)
    assert build("skipdecode:speedup=1").cache(opt()).idle


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 4), st.integers(1, 30), st.integers(1, 20), st.booleans())
@settings(max_examples=60, deadline=None)
def test_later_positions_run_a_subset_and_the_ends_of_the_model(one, other, warm_up, layers, tokens, whole):
    least, most = sorted((max(one, warm_up), max(other, warm_up)))
    budget = LayerBudget(most, least, warm_up, whole, new_tokens=tokens)
    sets = [budget.executed(position, 5, layers) for position in range(5 + tokens + 3)]
    for earlier, later in itertools.pairwise(sets):
        assert set(later) <= set(earlier)
    for executed in sets[5:]:
        assert executed == tuple(sorted(set(executed)))
        assert min(least, layers) <= len(executed) <= min(most, layers)
        assert set(range(min(warm_up, layers))) <= set(executed)
        assert set(executed) - set(range(warm_up)) <= set(range(layers - (len(executed) - warm_up), layers))
    assert len(sets[5]) == min(most, layers)
    assert len(sets[-1]) == min(least, layers)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("prompt_budget", ["all", "max"])
def test_decoding_is_each_layer_over_the_positions_that_run_it(family, prompt_budget):
    """A layer's positions are the first ones, so the whole text can go through it at once, without any cache."""
    model = tiny_decoder(family, layers=5)
    method = build(f"skipdecode:max_layers=4,min_layers=2,new_tokens=5,prompt_budget={prompt_budget}")
    tokens = torch.randint(1, VOCABULARY, (2, PROMPT + GIVEN), generator=torch.Generator().manual_seed(3))
    ran = decode(model, method, tokens[:, :PROMPT], tokens[:, PROMPT:])
    counts = [4 if prompt_budget == "max" else 5] * PROMPT + [4, 4, 3, 2, 2, 2]  # half to even: 3.5 is 4, 2.5 is 2
    with torch.no_grad():
        expected = by_layers(model, family, tokens, counts)
    assert (ran.logits - expected[:, PROMPT - 1 :]).norm() <= 1e-12 * expected.norm()
    executed = [[layer.layer for layer in layers] for layers in ran.record.passes]
    assert executed == [[0, *range(6 - count, 5)] for count in [counts[0], *counts[PROMPT:]]]


def by_layers(model, family, tokens, counts):
    base = model.base_model
    positions = torch.arange(tokens.shape[1])[None]
    if family == "gpt2":
        hidden, blocks, norm, more = base.wte(tokens) + base.wpe(positions), base.h, base.ln_f, {}
    else:
        hidden, blocks, norm = base.embed_tokens(tokens), base.layers, base.norm
        more = {"position_embeddings": base.rotary_emb(hidden, position_ids=positions)}
    for index, block in enumerate(blocks):
        running = sum(index == 0 or index >= 5 - (count - 1) for count in counts)
        if not running:
            continue
        cut = {name: tuple(x[:, :running] for x in pair) for name, pair in more.items()}
        hidden = torch.cat([block(hidden[:, :running], **cut), hidden[:, running:]], dim=1)
    return model.lm_head(norm(hidden))


def test_real_text_costs_fewer_layers_and_less_memory():
    """byte-gpt, not fine-tuned: the trace is that of the layers that ran, and what they read."""
    model = load_byte_gpt()
    row = torch.tensor([list(reference(held_out=True)[:80])])
    ran = decode(model, build("skipdecode:max_layers=4,min_layers=2,new_tokens=16"), row[:, :64], row[:, 64:])
    trace = topsieve.lower(ran.record)
    shape = ran.record.shape
    executed = {
        step: [op.layer for op in trace.ops if isinstance(op, Projection) and op.role == "qkv" and op.step == step]
        for step in range(17)
    }
    assert executed[0] == list(range(shape.layers))
    assert executed[1] == [0, 2, 3, 4]
    assert executed[16] == [0, 4]
    for op in trace.ops:
        if isinstance(op, QueryKey):
            assert op.keys == 64 + op.step
    per_token = 4 * shape.width**2 + 2 * shape.width * shape.ffn_width
    attention = [2 * shape.width * (64 * 64 if step == 0 else 64 + step) for step in range(17)]
    macs = sum(len(executed[s]) * (per_token * (64 if s == 0 else 1) + attention[s]) for s in range(17))
    assert trace.flops == 2 * macs
    row_bytes = 2 * shape.width * 4
    assert ran.record.held_bytes == tuple(len(executed[s]) * (64 + s) * row_bytes for s in range(17))


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match="min_layers"):
        build("skipdecode:min_layers=3")
    with pytest.raises(InputError, match="at most max_layers = 2"):
        build("skipdecode:min_layers=3,max_layers=2")
    model = tiny_decoder("llama")
    with torch.no_grad(), topsieve.reduce(model, "skipdecode:max_layers=2,min_layers=2"):
        out = model(input_ids=torch.ones(1, 4, dtype=torch.int64))
        with pytest.raises(InputError, match="one by one"):
            model(input_ids=torch.ones(1, 2, dtype=torch.int64), past_key_values=out.past_key_values)
    assert all("forward" not in vars(block) for block in model.model.layers), "the model is as it was"
