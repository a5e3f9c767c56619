"""Decoders under cache methods: every family generates, padding changes nothing, memory is freed, nothing stays behind."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache

import topsieve
from software.decoders import FAMILIES, VARIANTS, generate, prompt, tiny_decoder
from topsieve.cache.layer import KeptLayer
from topsieve.cache.rotary import Rotary
from topsieve.methods import build, describe, method_names
from topsieve.reduction import Reduction
from topsieve_sim.errors import InputError

KEEP = 0.5


def reduced(model, name, **more):
    takes_keep = describe(name.partition(":")[0]).takes_keep
    return topsieve.reduce(model, name, keep=KEEP if takes_keep else None, **more)


def test_all_cache_methods_are_tried_here():
    names = {name for name in method_names() if "cache" in describe(name).acts_on} - {"dense"}
    assert {variant.partition(":")[0] for variant in VARIANTS} == names


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_dense_is_the_model_to_the_bit(family, attention):
    # The eager code of transformers turns a padded float64 batch into not-a-number by itself.
    model, batch = tiny_decoder(family, attention=attention), prompt([9, 9] if attention == "eager" else [9, 5])
    plain = generate(model, batch, 4)
    for name in ("dense", "h2o:keep=1", "think:drop=0", "streaming-llm:keep=1", "spatten:keep=1", "d2o:keep=1"):
        with topsieve.reduce(model, name):
            assert generate(model, batch, 4).equal(plain)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_padded_batch_is_its_sequences_alone(name):
    """1e-9 of the norm: float64 rounding through three layers, far under any other choice of slots."""
    model = tiny_decoder("llama")
    lengths = [14, 9, 11]
    batch = prompt(lengths)
    with reduced(model, name):
        together = generate(model, batch, 5)
        for row, length in enumerate(lengths):
            alone = {key: x[row : row + 1, -length:] for key, x in batch.items()}
            single = generate(model, alone, 5)[0]
            assert (together[row] - single).norm() <= 1e-9 * single.norm()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["h2o", "streaming-llm:sinks=2", "adakv:window=2,kernel=3", "ems:window=3,tau=0.1"])
def test_every_family_generates_with_less_memory(family, name):
    model, batch = tiny_decoder(family), prompt([12, 12])
    with topsieve.reduce(model, "dense") as r:
        generate(model, batch, 4)
        dense = r.record.held_bytes
    with reduced(model, name) as r:
        scores = generate(model, batch, 4)
        assert scores.isfinite().all()
        held = r.record.held_bytes
        assert r.held_bytes == held[-1]
        # Ada-KV rounds each head's count, so the sum may be a slot a head off.
        slack = dense[0] / 12 if name.startswith("adakv") else 0
        assert abs(held[0] - dense[0] / 2) <= slack
        grows = name.startswith("adakv")
        assert (held[-1] > held[0]) == grows
        tensors = [x for layer in r._run.layers for x in (layer.keys, layer.values)]
        assert held[-1] == sum(x.untyped_storage().nbytes() for x in tensors), "nothing larger hides behind a view"


def test_bytes_of_ragged_heads_are_those_of_their_slots():
    model, batch = tiny_decoder("llama"), prompt([14, 8])
    with topsieve.reduce(model, "adakv:window=2,kernel=3,alpha=0", keep=KEEP) as r:
        model(**batch)
        last = r.record.passes[-1]
        for layer in last:
            (decision,) = layer.decisions
            assert layer.held_bytes == int(decision.slots_out.sum()) * 2 * 8 * 8
            assert len(set(decision.slots_out.tolist())) > 1


@pytest.mark.parametrize("name", ["snapkv:window=3", "knorm:skip_layers=0", "random"])
def test_evicting_is_masking(name):
    """Decoding over what is left equals decoding over everything with the evicted slots hidden."""
    model, batch = tiny_decoder("gpt2", layers=1, attention="eager"), prompt([12])
    with topsieve.reduce(model, name, keep=KEEP) as r:
        out = model(**batch, use_cache=True)
        token = out.logits[:, -1:].argmax(-1)
        mask = torch.ones(1, 13, dtype=torch.int64)
        fast = model(input_ids=token, attention_mask=mask, past_key_values=out.past_key_values).logits
        kept = r.record.passes[0][0].decisions[0].reduction.positions
    full = model(**batch, use_cache=True)
    hidden = torch.full((1, 4, 1, 13), torch.finfo(torch.float64).min, dtype=torch.float64)
    for head in range(4):
        hidden[0, head, 0, kept[head]] = 0
    hidden[..., 12] = 0
    slow = model(
        input_ids=token, attention_mask=hidden, past_key_values=full.past_key_values, position_ids=torch.tensor([[12]])
    ).logits
    assert (fast - slow).norm() <= 1e-12 * slow.norm()


def test_cache_positions_are_those_of_a_shorter_sequence():
    """One layer's keys and values depend on their token alone, so StreamingLLM's cache is that of a shorter prompt.

    1e-6: tables of angles are float32, the model's and ours.
    """
    model = tiny_decoder("llama", layers=1)
    ids = prompt([16])["input_ids"]
    with topsieve.reduce(model, "streaming-llm:sinks=2,recent=6"):
        out = model(input_ids=ids, use_cache=True)
        moved = model(input_ids=ids[:, -1:], past_key_values=out.past_key_values).logits
    short = torch.cat([ids[:, :2], ids[:, -6:], ids[:, -1:]], dim=1)
    assert (moved[:, -1] - model(input_ids=short).logits[:, -1]).norm() <= 1e-6 * moved.norm()


def test_rotation_is_the_models_own():
    model = tiny_decoder("llama", layers=1)
    rotary = Rotary(model.model.rotary_emb.inv_freq)
    x = torch.randn(1, 2, 5, 8, dtype=torch.float64)
    cos, sin = model.model.rotary_emb(x, torch.arange(5).unsqueeze(0))
    half = torch.cat([-x[..., 4:], x[..., :4]], dim=-1)
    wanted = x * cos + half * sin
    turned = rotary.turned(x, torch.arange(5))
    # The model's tables are float32.
    assert (turned - wanted).norm() <= 1e-6 * wanted.norm()
    matrices = rotary.matrix(torch.arange(5), torch.float64)
    assert torch.allclose((matrices @ x.unsqueeze(-1)).squeeze(-1), turned, atol=1e-12)


@pytest.mark.parametrize("fail", [False, True])
def test_the_model_is_left_as_it_was(fail):
    model, batch = tiny_decoder("qwen2"), prompt([9])
    before = generate(model, batch, 3)
    state = copy.deepcopy(model.config.to_dict())
    names = set(AttentionInterface._global_mapping), set(AttentionMaskInterface._global_mapping)
    try:
        with topsieve.reduce(model, "h2o", keep=KEEP):
            generate(model, batch, 3)
            if fail:
                raise RuntimeError
    except RuntimeError:
        assert fail
    assert model.config.to_dict() == state
    assert (set(AttentionInterface._global_mapping), set(AttentionMaskInterface._global_mapping)) == names
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert generate(model, batch, 3).equal(before)


def test_a_new_prompt_starts_anew_and_beams_take_their_slots_along():
    model, batch = tiny_decoder("llama"), prompt([10, 7])
    with topsieve.reduce(model, "h2o", keep=KEEP) as r:
        first = generate(model, batch, 3)
        again = generate(model, batch, 3)
        assert first.equal(again)
        assert len(r.record.passes) == 3
        beams = model.generate(**batch, max_new_tokens=4, num_beams=3, do_sample=False, pad_token_id=0)
        assert beams.shape == (2, 14)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda m: topsieve.reduce(m, "tome"), "does not act on decoders"),
        (lambda m: topsieve.reduce(m, "streaming-llm:positions=cache"), "learned positions cannot be moved"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(make, line):
    with pytest.raises(InputError, match=line):
        make(tiny_decoder("gpt2"))


def test_wrong_calls_are_one_line():
    model, batch = tiny_decoder("gpt2"), prompt([6, 4])
    with topsieve.reduce(model, "h2o", keep=KEEP) as r:
        with pytest.raises(InputError, match="no forward pass"):
            _ = r.record
        with pytest.raises(InputError, match="needs the cache"):
            model(**batch, use_cache=False)
        with pytest.raises(InputError, match="output_attentions"):
            model(**batch, output_attentions=True)
        right = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"].flip(1)}
        with pytest.raises(InputError, match="on the left"):
            model(**right)
        foreign = DynamicCache(config=model.config)
        foreign.update(torch.zeros(2, 4, 3, 8), torch.zeros(2, 4, 3, 8), 0)
        with pytest.raises(InputError, match="not filled under this reduction"):
            model(**batch, past_key_values=foreign)
        with pytest.raises(InputError, match="already under a reduction"):
            topsieve.reduce(model, "h2o")


def test_a_layer_keeps_what_it_is_told_and_moves_it_with_its_rows():
    layer = KeptLayer()
    key = torch.randn(2, 2, 5, 3)
    layer.update(key, key + 1)
    keep = torch.tensor([[0, 3], [1, 2], [4, -1], [0, 4]])
    valid = keep >= 0
    reduction = Reduction(5, keep, valid, keep, valid.float(), torch.zeros(4, 5), scope="kv_head")
    layer.reduce(reduction)
    assert layer.nbytes == 7 * 2 * 3 * 4
    assert layer.get_seq_length() == 5
    keys, values = layer.whole()
    assert keys[0, 1].equal(key[0, 1, [1, 2]])
    assert values[1, 0, 0].equal(key[1, 0, 4] + 1)
    assert layer.columns.tolist() == keep.tolist()
    layer.reorder_cache(torch.tensor([1, 0, 1]))
    assert layer.whole()[0][0].equal(keys[1])
    assert layer.columns[:2].tolist() == [[4, -1], [0, 4]]
    new = torch.randn(3, 2, 1, 3)
    grown, _ = layer.update(new, new)
    assert grown[..., -1:, :].equal(new)
    assert layer.columns[:, -1].tolist() == [5] * 6
    with pytest.raises(NotImplementedError):
        layer.crop(-1)


def test_key_channels_leave_the_memory():
    model, batch = tiny_decoder("llama"), prompt([12])
    with topsieve.reduce(model, "think:window=3,drop=0.5") as r:
        out = model(**batch, use_cache=True)
        model(input_ids=batch["input_ids"][:, -1:], past_key_values=out.past_key_values)
        first, second = r.record.passes
    for before, after in zip(first, second, strict=True):
        # Two heads: 9 narrow keys of 4 channels and 3 whole ones, 12 values of 8; float64.
        assert before.held_bytes == 2 * (9 * 4 + 3 * 8 + 12 * 8) * 8
        assert after.held_bytes == before.held_bytes + 2 * 2 * 8 * 8
        assert (after.channels, after.narrow_slots) == (4, 9)


def test_build_is_spelled_back():
    for name in VARIANTS:
        method = build(name)
        assert build(topsieve.methods.spell(method)) == method
