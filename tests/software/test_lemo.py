"""LeMo: predictors, maps and layers against plain loops, gradients, exact work, and byte-gpt on real text."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import topsieve
from software.decoders import VOCABULARY, tiny_decoder
from topsieve.lowering import lower
from topsieve.methods import build
from topsieve.reduction import ModelShape
from topsieve.subjects.byte_gpt.model import load_byte_gpt
from topsieve.subjects.byte_gpt.text import reference
from topsieve.tuning.gated_ffn import ApproximateFfn
from topsieve.tuning.lowering import lower_tuning
from topsieve.tuning.predictor import BlockPredictor, attention_map, kept_blocks, predictors
from topsieve.tuning.train import fitted, save_predictors, without_dead_units
from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate
from topsieve_sim.errors import InputError
from topsieve_sim.trace.ops import Gather, Merge, Projection, QueryKey, Similarity, TopK

METHOD = "lemo:block=3,keep=0.5,full_layers=1"
TOKENS = 15


def llama_7b() -> ModelShape:
    return ModelShape("llama", "llama", 32, 32, 32, 128, 4096, 11008, gated_ffn=True)


def text(batch: int = 1, tokens: int = TOKENS, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (batch, tokens), generator=torch.Generator().manual_seed(seed))


def test_the_layers_are_the_published_ones():
    plans = build("lemo").tuning(llama_7b()).layers
    assert [plan.sparse for plan in plans] == [False] * 15 + [True] * 16 + [False]
    assert [plan.scored for plan in plans] == [True] * 31 + [False]
    assert not any(plan.scored for plan in build("lemo:variant=paper").tuning(llama_7b()).layers[:15])
    assert build("lemo:variant=paper,full_layers=0,thresholds=1/2").tuning(llama_7b()).layers[1].threshold == 2
    maps = BlockPredictor(32, 128, 64).maps
    assert maps[:3] == ((8192, 128), (128, 8192), (8192, 128))


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_maps_are_sums_over_heads_of_blocks_side_by_side(block, heads, width, tokens, seed):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    hidden = torch.randn(2, tokens, heads * width, generator=generator, dtype=torch.float64)
    predictor = BlockPredictor(heads, width, block, (4, 3)).double()
    count = -(-tokens // block)
    wanted = torch.zeros(2, count, count, dtype=torch.float64)
    for row in range(2):
        for head in range(heads):
            slices = hidden[row, :, head * width : (head + 1) * width]
            padded = torch.cat([slices, torch.zeros(count * block - tokens, width, dtype=torch.float64)])
            cut = [padded[b * block : (b + 1) * block].flatten() for b in range(count)]
            for a in range(count):
                for b in range(count):
                    wanted[row, a, b] += network(predictor.query, cut[a]) @ network(predictor.key, cut[b])
    assert (predictor(hidden) - wanted).norm() <= 1e-12 * (1 + wanted.norm())
    query = torch.randn(1, 2 * heads, tokens, width, generator=generator, dtype=torch.float64)
    key = torch.randn(1, heads, tokens, width, generator=generator, dtype=torch.float64)
    products = sum((query[0, h] @ key[0, h // 2].T).clamp(min=0) for h in range(2 * heads))
    found = attention_map(query, key, block)
    for a in range(count):
        for b in range(count):
            part = products[a * block : (a + 1) * block, b * block : (b + 1) * block]
            assert abs(float(found[0, a, b] - part.max() / 16)) <= 1e-12 * (1 + float(part.max()))


def network(layers, x):
    first = (layers[0].weight @ x).clamp(min=0)
    return layers[4].weight @ (layers[2].weight @ first).clamp(min=0)


def test_counts_truncate_and_ties_go_to_the_earlier_block():
    equal = torch.zeros(1, 10)
    assert kept_blocks(equal, 0.4, None).tolist() == [[0, 1, 2, 3]]
    assert kept_blocks(torch.zeros(1, 100), 0.29, None).shape[1] == 28, "100 x 0.29 is 28.999..."
    assert kept_blocks(torch.zeros(1, 2), 0.4, None).tolist() == [[0]]
    scores = torch.tensor([[0.5, 3.0, 1.0], [5.0, 6.0, 7.0]])
    assert kept_blocks(scores, None, 1.0).tolist() == [[0, 1, 2], [0, 1, 2]]
    assert kept_blocks(scores[:1], None, 1.0).tolist() == [[1]]


@pytest.mark.parametrize("source", ["predictor", "attention"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_gathering_the_blocks_is_hiding_the_others(family, attention, source):
    """Section 6, steps 4 to 9, by masks: kept rows see kept keys before them, the others add nothing."""
    model, tokens = tiny_decoder(family, layers=4, attention=attention), text(2)
    with torch.no_grad(), topsieve.reduce(model, f"{METHOD},scores={source}") as r:
        found = model.base_model(input_ids=tokens).last_hidden_state
    kept = {layer.layer: layer.blocks for layer in r.record.layers}
    assert r.record.attention_tokens == (15, 6, 6, 15)
    with torch.no_grad():
        wanted = masked(model, family, tokens, source, kept)
    # The eager code of transformers takes Llama's softmax in single precision.
    bound = 1e-6 if (family, attention) == ("llama", "eager") else 1e-12
    assert (found - wanted).norm() <= bound * wanted.norm()


def masked(model, family, tokens, source, kept):
    base, heads, block = model.base_model, 4, 3
    positions = torch.arange(TOKENS)[None]
    if family == "gpt2":
        x, blocks, last = base.wte(tokens) + base.wpe(positions), base.h, base.ln_f
        rotary = None
    else:
        x, blocks, last = base.embed_tokens(tokens), base.layers, base.norm
        rotary = base.rotary_emb(x, position_ids=positions)
    made = predictors("", (0, 1, 2), heads, 8, block, 0)
    for index, layer in enumerate(blocks):
        normed = layer.ln_1(x) if family == "gpt2" else layer.input_layernorm(x)
        if family == "gpt2":
            q, k, v = layer.attn.c_attn(normed).chunk(3, -1)
        else:
            q, k, v = (getattr(layer.self_attn, f"{name}_proj")(normed) for name in "qkv")
        q, k, v = (y.unflatten(-1, (-1, 8)).transpose(1, 2) for y in (q, k, v))
        if 0 < index < 3:
            if source == "predictor":
                scores = copy.deepcopy(made[index]).double()(normed).sum(1)
            else:
                groups = heads // k.shape[1]
                scores = torch.stack(
                    [
                        torch.nn.functional.max_pool2d(
                            sum((q[b, h] @ k[b, h // groups].T).relu() for h in range(heads))[None], block
                        )[0].sum(0)
                        for b in range(2)
                    ]
                )
            best = [sorted(sorted(range(5), key=lambda i, s=row: (-s[i], i))[:2]) for row in scores.tolist()]
            assert kept[index].tolist() == best
        if rotary is not None:
            q, k = apply_rotary_pos_emb(q, k, *rotary)
        k, v = (y.repeat_interleave(heads // y.shape[1], 1) for y in (k, v))
        live = torch.zeros(2, TOKENS, dtype=torch.bool)
        for b in range(2):
            for one in kept[index][b].tolist():
                live[b, one * block : (one + 1) * block] = True
        seen = torch.ones(TOKENS, TOKENS).tril().bool() & live[:, None, None, :]
        p = (q @ k.transpose(2, 3) / 8**0.5).masked_fill(~seen, -1e30).softmax(-1)
        out = (p @ v).transpose(1, 2).flatten(2)
        out = layer.attn.c_proj(out) if family == "gpt2" else layer.self_attn.o_proj(out)
        x = x + out * live.unsqueeze(-1)
        x = x + (layer.mlp(layer.ln_2(x)) if family == "gpt2" else layer.mlp(layer.post_attention_layernorm(x)))
    return last(x)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_keeping_all_blocks_is_the_model_and_its_gradient(family):
    model, tokens = tiny_decoder(family), text(2, 13)
    plain = model(input_ids=tokens, labels=tokens).loss
    plain.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    with topsieve.reduce(model, "lemo:block=4,keep=1") as r:
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
    assert loss.equal(plain)
    assert all(
        a.equal(b) for a, b in zip(gradients, [p.grad for p in model.parameters() if p.grad is not None], strict=True)
    )
    assert [op.k for op in lower(r.record).ops if isinstance(op, TopK)] == [4] * 4, "predictors run all the same"
    assert not any("forward" in vars(module) for module in model.modules())


def test_the_ffn_s_gradient_goes_through_its_strongest_channels():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    gate, up, down = (torch.randn(*s, dtype=torch.float64) for s in ((10, 6), (10, 6), (6, 10)))
    aim = torch.randn(2, 5, 6, dtype=torch.float64)
    for drop in (0.0, 0.8):
        a, u = torch.nn.functional.silu(x @ gate.T), x @ up.T
        score = a.flatten(0, 1).norm(dim=0) + u.flatten(0, 1).norm(dim=0)
        kept = sorted(range(10), key=lambda i, s=score: (-s[i].item(), i))[: max(int(10 * (1 - drop)), 1)]
        assert len(kept) == (10 if drop == 0 else 1), "int(10 x (1 - 0.8)) is 1"
        wanted = torch.autograd.grad(((a * u)[..., kept] @ down[:, kept].T * aim).sum(), x)[0]
        output = ApproximateFfn.apply(x, gate, up, down, drop)
        assert (output - (a * u) @ down.T).norm() <= 1e-12 * output.norm()
        found = torch.autograd.grad((output * aim).sum(), x)[0]
        assert (found - wanted).norm() <= 1e-12 * wanted.norm()


@pytest.mark.parametrize("source", ["predictor", "attention"])
def test_the_work_is_what_torch_counts_forward_and_backward(source):
    """GPT-2, eager, frozen weights: only hidden states have gradients."""
    model = tiny_decoder("gpt2", layers=4, attention="eager").requires_grad_(False)
    embedded = model.transformer.wte(text(2)).requires_grad_(True)
    with topsieve.reduce(model, f"{METHOD},scores={source}") as r, FlopCounterMode(display=False) as counter:
        model.transformer(inputs_embeds=embedded).last_hidden_state.sum().backward()
    trace = lower_tuning(r.record, backward=True, operands=True)
    assert trace.flops == sum(counter.flop_counts["Global"].values())
    here = [op for op in trace.ops if op.layer == 1 and op.sequence == 0 and op.step == 0]
    assert [type(op) for op in here if isinstance(op, Merge | TopK | Gather)] == [Merge, TopK, Gather, Gather]
    assert [(op.queries, op.keys) for op in trace.ops if isinstance(op, QueryKey) and op.layer == 1] == [(6, 6)] * 4
    if source == "predictor":
        assert sum(isinstance(op, Projection) and op.role == "other" for op in here) == 6
        assert [(op.rows_a, op.width) for op in here if isinstance(op, Similarity)] == [(5, 32)]
    for index, op in enumerate(trace.ops):
        if isinstance(op, TopK):
            scores = r.record.layers[op.layer].scores[op.sequence]
            assert trace.operands[index, "scores"] == pytest.approx(scores.float().numpy()[None])
    assert simulate(trace, load_config("spatten")).cycles > 0
    forward = lower(r.record)
    assert forward.ops == tuple(op for op in trace.ops if op.step == 0)
    assert "attention tokens" in r.report()


def test_dead_units_leave_without_changing_what_is_put_out():
    torch.manual_seed(1)
    predictor = BlockPredictor(2, 3, 4, (8, 9), bias=True)
    with torch.no_grad():
        predictor.query[0].bias[:3] = -100.0
        predictor.key[2].bias[4] = -100.0
    hidden = torch.randn(3, 12, 6)
    before = predictor(hidden)
    without_dead_units(predictor, hidden, 1)
    assert predictor.query[0].out_features <= 5
    assert predictor.key[2].out_features <= 8
    alive = copy.deepcopy(predictor)
    without_dead_units(alive, hidden, 1)
    assert alive.maps == predictor.maps
    if (predictor.query[0].out_features, predictor.query[2].out_features) == (5, 9):
        assert torch.allclose(predictor(hidden), before, atol=1e-6)


def test_what_cannot_be_is_refused():
    model = tiny_decoder("llama")
    with topsieve.reduce(model, METHOD):
        with pytest.raises(InputError, match="padding"):
            model(input_ids=text(), attention_mask=torch.tensor([[0] + [1] * 14]))
        with pytest.raises(InputError, match="whole blocks"):
            model(input_ids=text(2, 14))
        with pytest.raises(InputError, match="already under"), topsieve.reduce(model, METHOD):
            raise AssertionError
    with pytest.raises(InputError, match="gated FFN"):
        topsieve.reduce(tiny_decoder("gpt2"), "lemo:mlp_drop=0.8")
    with topsieve.reduce(model, "lemo:mlp_drop=0.8"), pytest.raises(InputError, match="frozen"):
        model(input_ids=text())
    with pytest.raises(InputError, match="thresholds"):
        build("lemo:thresholds=1")


def test_fitted_predictors_find_the_blocks_of_real_text(tmp_path):
    """byte-gpt, 16 blocks of 8 bytes: fitted on training topics, tried on held-out ones; by chance half are right."""
    model = load_byte_gpt()
    rows, unseen = (windows(reference(held_out=held_out), count, 128) for held_out, count in ((False, 96), (True, 12)))
    method = "lemo:block=8,keep=0.5,full_layers=1"
    save_predictors(fitted(model, build(method), rows, steps=80, batch=8), tmp_path / "p.safetensors")
    kept, loss = {}, {}
    for name, more in (
        ("attention", ",scores=attention"),
        ("untrained", ""),
        ("fitted", f",weights={tmp_path / 'p.safetensors'}"),
    ):
        with torch.no_grad(), topsieve.reduce(model, method + more) as r:
            loss[name] = float(model(input_ids=unseen, labels=unseen).loss)
            kept[name] = torch.cat([layer.blocks for layer in r.record.layers[1:4]]).tolist()
    right = {
        name: sum(len(set(a) & set(b)) for a, b in zip(kept[name], kept["attention"], strict=True))
        / (8 * len(kept[name]))
        for name in ("untrained", "fitted")
    }
    assert right["untrained"] < 0.55 < right["fitted"]
    with torch.no_grad():
        assert float(model(input_ids=unseen, labels=unseen).loss) < min(loss.values())


def test_a_model_learns_under_it():
    """Three steps on one text, by gradients through the kept blocks alone."""
    model = load_byte_gpt()
    row = windows(reference(held_out=True), 1, 128)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    with topsieve.reduce(model, "lemo:block=16,keep=0.5,full_layers=1,scores=attention"):
        for _ in range(4):
            loss = model(input_ids=row, labels=row).loss
            losses.append(float(loss.detach()))
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    assert losses == sorted(losses, reverse=True)


def windows(content: bytes, count: int, length: int) -> torch.Tensor:
    step = len(content) // count
    return torch.tensor([list(content[i * step : i * step + length]) for i in range(count)])
