"""Encoders whose positions are not simply the columns: T5 (a bias of the scores) and RoBERTa (counted from the padding id)."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedModel, T5Config, T5EncoderModel, T5ForConditionalGeneration

import topsieve
from software.encoders import PAD, VOCABULARY, alone, ragged_batch, relative, tiny_encoder
from topsieve_sim.errors import InputError

torch.set_num_threads(1)

# Pruning, merging, made slots, signals of every kind, heads, values and outputs over depth.
METHODS = (
    "random",
    "pooling",
    "spatten:head_keep=0.5,value_keep=0.5",
    "ltp",
    "evit",
    "tome",
    "ats",
    "a-vit",
    "globalcom2",
)
LENGTHS = (19, 7, 12)
# As in `test_model_reduce`: float32 rounding of another summation order.
FLOAT32 = 1e-5
FLOAT64 = 1e-12
SIZES = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 4,
    "num_heads": 4,
    "pad_token_id": PAD,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
}


def tiny_t5(attention: str = "sdpa", **changes: object) -> PreTrainedModel:
    """Peaked attention, and position biases large enough to matter."""
    torch.manual_seed(0)
    config = T5Config(**(SIZES | changes))  # type: ignore[arg-type]
    config._attn_implementation = attention
    model = T5EncoderModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative_attention_bias" in name or ".q." in name or ".k." in name:
                parameter.normal_(std=0.5)
            elif "layer_norm" in name:
                parameter.normal_(mean=1.0, std=0.2)
    return model


def encoder(family: str, attention: str = "sdpa") -> PreTrainedModel:
    return tiny_t5(attention) if family == "t5" else tiny_encoder(family, attention)


def run(model: PreTrainedModel, method: str, batch: dict[str, torch.Tensor]) -> tuple:
    with torch.no_grad(), topsieve.reduce(model, method) as reduced:
        hidden = model(**batch).last_hidden_state
    return hidden, reduced


@pytest.mark.parametrize(
    ("family", "method"),
    [("t5", name) for name in METHODS] + [("roberta", name) for name in ("random", "spatten", "tome", "evit", "ats")],
)
def test_a_padded_batch_equals_its_sequences_alone(method: str, family: str) -> None:
    model = encoder(family)
    batch = ragged_batch(LENGTHS, padded=23)
    hidden, together = run(model, method, batch)
    for row in range(len(LENGTHS)):
        single, one = run(model, method, alone(batch, row))
        live = together.valid[row]
        assert together.positions[row][live].tolist() == one.positions[0].tolist()
        assert relative(hidden[row][live], single[0]) < FLOAT32


@pytest.mark.parametrize("family", ["t5", "roberta"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_nothing_is_left_and_keeping_all_is_the_model(family: str, attention: str) -> None:
    model = encoder(family, attention)
    batch = ragged_batch(LENGTHS)
    with torch.no_grad():
        before = model(**batch).last_hidden_state
    # What the model is made of; configurations of parts too.
    configs = [str(part.config) for part in model.modules() if hasattr(part, "config")]
    kernels = [part.config._attn_implementation for part in model.modules() if hasattr(part, "config")]
    whole, _ = run(model, "random:keep=1.0", batch)
    live = batch["attention_mask"].bool()
    assert torch.equal(whole[live], before[live])
    signals, _ = run(model, "ltp:final_token_threshold=0", batch)
    assert relative(signals[live], before[live]) < FLOAT32
    reduced, _ = run(model, "spatten:keep=0.5", batch)
    assert reduced.shape[1] < before.shape[1]
    with pytest.raises(RuntimeError, match="stop"), topsieve.reduce(model, "tome"):
        raise RuntimeError("stop")
    assert [str(part.config) for part in model.modules() if hasattr(part, "config")] == configs
    assert [part.config._attn_implementation for part in model.modules() if hasattr(part, "config")] == kernels
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert not any("forward" in vars(part) for part in model.modules())
    with torch.no_grad():
        assert torch.equal(model(**batch).last_hidden_state, before)


@pytest.mark.parametrize("method", ["random", "spatten", "powerbert", "uniform"])
def test_pruned_t5_attends_by_original_distances(method: str) -> None:
    """Against T5's own layers in a loop, whose bias is computed from the original positions of what is left."""
    model = tiny_t5().double()
    batch = alone(ragged_batch(LENGTHS), 0)
    hidden, reduced = run(model, method, batch)
    record = reduced.record
    x = model.encoder.embed_tokens(batch["input_ids"])
    place = torch.arange(x.shape[1])
    first = model.encoder.block[0].layer[0].SelfAttention
    with torch.no_grad():
        for block, layer in zip(model.encoder.block, record.layers, strict=True):
            own, normed = block.layer[0].SelfAttention, block.layer[0].layer_norm(x)
            assert layer.positions[0].tolist() == place.tolist()
            query, key, value = (
                part(normed)[0].unflatten(-1, (4, 8)).transpose(0, 1) for part in (own.q, own.k, own.v)
            )
            distance = place[None, :] - place[:, None]
            bucket = first._relative_position_bucket(distance, bidirectional=True, num_buckets=8, max_distance=12)
            scores = query @ key.transpose(1, 2) + first.relative_attention_bias(bucket).permute(2, 0, 1)
            mixed = (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)
            x = x + own.o(mixed).unsqueeze(0)
            for decision in layer.decisions:
                kept = decision.reduction.keep[0]
                x, place = x[:, kept], place[kept]
            x = block.layer[1](x)
        x = model.encoder.final_layer_norm(x)
    assert len(place) < 19
    assert relative(hidden, x) < FLOAT64
    assert topsieve.lower(record).flops > 0


def test_flops_are_those_of_the_counter() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    for changes in ({}, {"feed_forward_proj": "gated-gelu"}):
        model = tiny_t5("eager", **changes)
        batch = ragged_batch((19, 19, 19))
        with (
            torch.no_grad(),
            topsieve.reduce(model, "powerbert", keep=0.5) as reduced,
            FlopCounterMode(display=False) as counter,
        ):
            model(**batch)
        assert topsieve.lower(reduced.record, mode="padded").flops == counter.get_total_flops()


def test_a_t5_with_a_decoder_is_refused() -> None:
    model = T5ForConditionalGeneration(T5Config(**SIZES))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"cross-attention.*T5EncoderModel"):
        topsieve.reduce(model, "spatten")
