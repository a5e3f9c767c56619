"""A model under every registered method: the laws that hold for all of them."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch
from transformers import BertForSequenceClassification

import topsieve
from software.encoders import CONFIGS, VOCABULARY, alone, ragged_batch, relative, tiny_config, tiny_encoder
from topsieve.methods import build, describe, method_names
from topsieve_sim.errors import InputError

FULL_SPATTEN = "spatten:keep=0.5,head_keep=0.5,value_keep=0.3"
QUANTISED = "spatten:keep=0.5,quantisation=8+4,lsb_threshold=0.4"
ON_LAYERS = tuple(name for name in method_names() if "layers" in describe(name).acts_on)
METHODS = (*ON_LAYERS, FULL_SPATTEN, QUANTISED, "ltp:final_token_threshold=0.1")
LTP = "ltp:final_token_threshold=0.1"
PRUNING = ("random", "uniform", "spatten", "spatten:head_keep=0.5", "powerbert", LTP, "evit:fuse_token=false")
LENGTHS = (19, 7, 12)

# Float32 rounding of another summation order, through four layers: a few units of 6e-8 each.
FLOAT32 = 1e-5
# Quantised values may fall on the other side of a rounding border when their last bit differs; one step of 12 bits is
# 5e-4 of the largest value, and only some elements take it.
ROUNDING_BORDER = 1e-3


def run(model: torch.nn.Module, method: str, batch: dict[str, torch.Tensor], **options: object) -> tuple:
    with torch.no_grad(), topsieve.reduce(model, method, **options) as reduced:
        hidden = model(**batch).last_hidden_state
    return hidden, reduced


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", METHODS)
def test_a_padded_batch_equals_its_sequences_alone(method: str, attention: str) -> None:
    model = tiny_encoder(attention=attention)
    batch = ragged_batch(LENGTHS, padded=23)
    hidden, together = run(model, method, batch)
    bound = ROUNDING_BORDER if method == QUANTISED else FLOAT32
    for row in range(len(LENGTHS)):
        single, one = run(model, method, alone(batch, row))
        live = together.valid[row]
        assert one.valid.all()
        assert together.positions[row][live].tolist() == one.positions[0].tolist()
        assert torch.allclose(together.size[row][live], one.size[0])
        assert relative(hidden[row][live], single[0]) < bound
        assert not together.positions[row][~live].ge(0).any()
        assert not together.size[row][~live].any()


@pytest.mark.parametrize("method", METHODS)
def test_eager_and_sdpa_agree(method: str) -> None:
    batch = ragged_batch(LENGTHS)
    eager, first = run(tiny_encoder(attention="eager"), method, batch)
    sdpa, second = run(tiny_encoder(attention="sdpa"), method, batch)
    assert torch.equal(first.positions, second.positions)
    live = first.valid
    assert relative(sdpa[live], eager[live]) < (ROUNDING_BORDER if method == QUANTISED else FLOAT32)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", [name for name in ON_LAYERS if describe(name).takes_keep])
def test_keeping_all_is_the_model_to_the_bit(method: str, attention: str) -> None:
    model = tiny_encoder(attention=attention)
    batch = ragged_batch(LENGTHS)
    with torch.no_grad():
        whole = model(**batch).last_hidden_state
    hidden, reduced = run(model, method, batch, keep=1.0)
    assert torch.equal(hidden, whole)
    assert torch.equal(reduced.valid, batch["attention_mask"].bool())
    assert torch.equal(run(model, "dense", batch)[0], whole)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", ["powerbert:counts=99/99/99/99", "ltp:thresholds=0/0/0/0", "spatten:value_keep=1"])
def test_collecting_signals_changes_nothing_but_rounding(method: str, attention: str) -> None:
    """Until the first removal the hidden states are the model's to 1e-6."""
    model = tiny_encoder(attention=attention)
    batch = ragged_batch(LENGTHS)
    live = batch["attention_mask"].bool()
    with torch.no_grad():
        whole = model(**batch, output_hidden_states=True).hidden_states
    with torch.no_grad(), topsieve.reduce(model, method) as reduced:
        states = model(**batch, output_hidden_states=True).hidden_states
    untouched = [layer for layer in reduced.record.layers if layer.ffn_tokens.tolist() == list(LENGTHS)]
    assert len(untouched) >= 1
    assert all(layer.signals for layer in untouched)
    for layer in untouched:
        assert relative(states[layer.layer + 1][live], whole[layer.layer + 1][live]) <= 1e-6


@pytest.mark.parametrize("method", PRUNING)
def test_gather_equals_mask(method: str) -> None:
    """Removed tokens gathered away or left in place and masked give the same hidden states of the survivors."""
    model = tiny_encoder(attention="eager")
    batch = ragged_batch(LENGTHS)
    hidden, reduced = run(model, method, batch)
    handles = []
    for layer, layer_record in zip(model.encoder.layer, reduced.record.layers, strict=True):
        batch_index, slot = (layer_record.positions >= 0).nonzero(as_tuple=True)
        live = torch.zeros(batch["input_ids"].shape, dtype=torch.bool)
        live[batch_index, layer_record.positions[batch_index, slot]] = True
        mask = torch.zeros(live.shape).masked_fill(~live, torch.finfo(torch.float32).min)[:, None, None, :]
        alive = layer_record.heads.repeat_interleave(8, dim=1).unsqueeze(1)

        def masked(module: torch.nn.Module, args: tuple, mask: torch.Tensor = mask) -> tuple:
            return (args[0], mask, *args[2:])

        def without_dropped(module: torch.nn.Module, args: tuple, output: tuple, heads: torch.Tensor = alive) -> tuple:
            return (output[0] * heads, *output[1:])

        handles.append(layer.register_forward_pre_hook(masked))
        handles.append(layer.attention.self.register_forward_hook(without_dropped))
    with torch.no_grad():
        reference = model(**batch).last_hidden_state
    for handle in handles:
        handle.remove()
    assert reduced.valid.sum() < sum(LENGTHS)
    for row in range(len(LENGTHS)):
        live = reduced.valid[row]
        assert relative(hidden[row][live], reference[row][reduced.positions[row][live]]) < FLOAT32


def state_of(model: torch.nn.Module) -> tuple:
    """All that a reduction could leave behind."""
    from transformers import AttentionInterface, AttentionMaskInterface

    hooks = [
        (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._forward_hooks_with_kwargs))
        for module in model.modules()
    ]
    registries = (dict(AttentionInterface._global_mapping), dict(AttentionMaskInterface._global_mapping))
    attributes = [sorted(module.__dict__) for module in model.modules()]
    return hooks, registries, attributes, model.config.to_dict(), model.config._attn_implementation


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_model_is_left_as_it_was(method: str, attention: str) -> None:
    model = tiny_encoder(attention=attention)
    batch = ragged_batch(LENGTHS)
    before = state_of(model)
    with torch.no_grad():
        whole = model(**batch).last_hidden_state
    run(model, method, batch)
    assert state_of(model) == before
    with torch.no_grad():
        assert torch.equal(model(**batch).last_hidden_state, whole)


def test_the_model_is_left_as_it_was_after_an_exception() -> None:
    model = tiny_encoder()
    before = state_of(model)
    with pytest.raises(ZeroDivisionError), topsieve.reduce(model, "spatten"):
        raise ZeroDivisionError
    assert state_of(model) == before
    with pytest.raises(IndexError), topsieve.reduce(model, "spatten"):
        model(torch.tensor([[VOCABULARY]]))
    assert state_of(model) == before
    with topsieve.reduce(model, "spatten"):
        with pytest.raises(InputError, match="already under a reduction"):
            topsieve.reduce(model, "tome")
        model(**ragged_batch((4,)))
    assert state_of(model) == before


def test_two_models_at_once_do_not_meet() -> None:
    bert, roberta = tiny_encoder(), tiny_encoder("roberta")
    batch = ragged_batch(LENGTHS)
    first, second = run(bert, "spatten", batch)[0], run(roberta, "tome", batch)[0]
    with torch.no_grad(), topsieve.reduce(bert, "spatten"), topsieve.reduce(roberta, "tome"):
        assert torch.equal(bert(**batch).last_hidden_state, first)
        assert torch.equal(roberta(**batch).last_hidden_state, second)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("method", ["spatten", "tome", "evit"])
def test_every_family_and_every_way_to_call_it(family: str, method: str) -> None:
    """Hooks bind by signature: positional, keyword and embedded inputs give the same."""
    model = tiny_encoder(family)
    batch = ragged_batch(LENGTHS)
    hidden, reduced = run(model, method, batch)
    assert reduced.valid.sum() < sum(LENGTHS)
    with torch.no_grad(), topsieve.reduce(model, method):
        positional = model(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        assert torch.equal(positional, hidden)
        assert torch.equal(model(**batch, return_dict=False)[0], hidden)
    if family in ("bert", "electra"):  # the others count positions from the ids
        embedded = model.get_input_embeddings()(batch["input_ids"])
        with torch.no_grad(), topsieve.reduce(model, method):
            got = model(inputs_embeds=embedded, attention_mask=batch["attention_mask"]).last_hidden_state
        assert torch.equal(got, hidden)


def test_a_task_model_is_reduced_inside() -> None:
    torch.manual_seed(0)
    model = BertForSequenceClassification(tiny_config()).eval()
    batch = ragged_batch(LENGTHS)
    with torch.no_grad(), topsieve.reduce(model, "spatten:protect_first=1", keep=0.5) as reduced:
        logits = model(**batch).logits
        inside = model.bert(**batch).pooler_output
        assert torch.equal(model.classifier(inside), logits)
    assert reduced.positions[:, 0].tolist() == [0, 0, 0]


def test_gradients_flow() -> None:
    model = tiny_encoder()
    with topsieve.reduce(model, "tome") as reduced:
        hidden = model(**ragged_batch(LENGTHS)).last_hidden_state
        topsieve.mean_pool(hidden, reduced.valid, reduced.size).sum().backward()
    assert all(layer.attention.self.query.weight.grad.abs().sum() > 0 for layer in model.encoder.layer)


def test_half_precision_stays_half_precision() -> None:
    model = tiny_encoder().to(torch.bfloat16)
    hidden, reduced = run(model, FULL_SPATTEN, ragged_batch(LENGTHS))
    assert hidden.dtype == torch.bfloat16
    assert hidden[reduced.valid].isfinite().all()


def test_dropped_heads_stay_dropped() -> None:
    model = tiny_encoder()
    _, reduced = run(model, "spatten:head_keep=0.25,head_unpruned=0", ragged_batch(LENGTHS))
    heads = [layer.heads for layer in reduced.record.layers]
    counts = [int(mask.sum(-1)[0]) for mask in heads]
    assert counts[0] == 4
    assert counts[-1] == 1
    for earlier, later in itertools.pairwise(heads):
        assert not (later & ~earlier).any()


def test_mean_pooling_of_merged_tokens_is_the_mean_of_their_sources() -> None:
    """Merging in one step after the last attention: the size-weighted mean is kept through the map."""
    hidden = torch.randn(2, 5, 8)
    valid = torch.tensor([[True] * 5, [True, True, True, False, False]])
    size = torch.tensor([[1.0, 3, 1, 1, 2], [2, 1, 1, 0, 0]])
    pooled = topsieve.mean_pool(hidden, valid, size)
    assert torch.allclose(pooled[1], (2 * hidden[1, 0] + hidden[1, 1] + hidden[1, 2]) / 4)
    assert torch.allclose(topsieve.mean_pool(hidden, valid)[1], hidden[1, :3].mean(0))
    hidden[1, 3:] = float("inf")
    assert topsieve.mean_pool(torch.where(valid.unsqueeze(-1), hidden, 0), valid, size).isfinite().all()


def test_the_report_says_tokens_and_flops() -> None:
    _, reduced = run(tiny_encoder(), "spatten", ragged_batch((16, 16)))
    report = reduced.report()
    assert "spatten on bert, 2 sequences" in report
    assert "16.0" in report
    assert "GFLOP" in report


def test_names_and_parameters() -> None:
    model = tiny_encoder()
    by_field = topsieve.reduce(model, "spatten", keep=0.25, value_keep=0.5).method
    assert by_field == topsieve.reduce(model, "spatten:keep=0.25,value_keep=0.5").method
    assert by_field == topsieve.reduce(model, build("spatten:keep=0.25"), value_keep=0.5).method
    with pytest.raises(InputError, match=r"method spatten.*heads"):
        topsieve.reduce(model, "spatten", heads=3)
    with pytest.raises(InputError, match="unknown method"):
        topsieve.reduce(model, "spaten")


def test_importing_the_package_stays_fast() -> None:
    code = "import sys, topsieve; assert not {'torch', 'numba', 'matplotlib', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="nothing"):
        _ = topsieve.nothing
    assert {"reduce", "lower", "mean_pool", "Record"} <= set(dir(topsieve))
