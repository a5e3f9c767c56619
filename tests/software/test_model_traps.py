"""Silent traps of transformers 5.x, each as a regression test (specification `reduction-interface`, section 3)."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel, GPT2Model, LlamaConfig, LlamaModel

import topsieve
from software.encoders import alone, ragged_batch, relative, tiny_config, tiny_encoder
from topsieve.models.attention import attend
from topsieve.reduction.roles import AttentionPolicy, Signal
from topsieve_sim.errors import InputError

ALL_TAPS = frozenset(
    {
        Signal.ATTENTION_COLUMN_SUM,
        Signal.ATTENTION_DIAGONAL,
        Signal.ATTENTION_CLS_ROW,
        Signal.HEAD_ABSOLUTE_SUM,
        Signal.KEY,
    }
)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", ["dense", "spatten"])
def test_trap_1_padding_is_never_attended(method: str, attention: str) -> None:
    """What stands in the padding changes nothing."""
    model = tiny_encoder(attention=attention)
    batch = ragged_batch((9, 4))
    other = dict(batch, input_ids=batch["input_ids"].masked_fill(batch["attention_mask"] == 0, 50))
    with torch.no_grad(), topsieve.reduce(model, method) as reduced:
        first = model(**batch).last_hidden_state
        second = model(**other).last_hidden_state
        assert torch.equal(first[reduced.valid], second[reduced.valid])


DECODERS = [
    GPT2Model(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20)),
    GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20)),
    LlamaModel(
        LlamaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=20)
    ),
]


@pytest.mark.parametrize("model", DECODERS, ids=lambda model: type(model).__name__)
def test_traps_2_and_3_decoders_take_methods_of_the_cache_only(model: torch.nn.Module) -> None:
    """With others their causal mask and their cache would silently no longer fit."""
    with pytest.raises(InputError, match="does not act on decoders"):
        topsieve.reduce(model, "tome")
    with pytest.raises(InputError, match="acts on the cache of decoders"):
        topsieve.reduce(tiny_encoder(), "h2o")


def test_traps_2_and_3_an_encoder_family_as_decoder_is_refused() -> None:
    config = BertConfig(**{**tiny_config().to_dict(), "is_decoder": True})
    with pytest.raises(InputError, match="a decoder cannot be reduced"):
        topsieve.reduce(BertLMHeadModel(config), "spatten")


def exact_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> tuple:
    probability = (query.double() @ key.double().transpose(-1, -2) * scaling).softmax(-1)
    return probability, probability @ value.double()


@pytest.mark.parametrize("tokens", [5, 300])
def test_trap_5_padding_rows_reach_no_signal(tokens: int) -> None:
    """Every signal equals that of each sequence alone in float64, over several query blocks."""
    torch.manual_seed(1)
    lengths = (tokens, tokens - 3)
    query, key, value = (3 * torch.randn(2, 3, tokens, 8) for _ in range(3))
    valid = torch.arange(tokens) < torch.tensor(lengths).unsqueeze(1)
    heads = torch.tensor([[True, True, True], [True, False, True]])
    attended = attend(
        query,
        key,
        value,
        valid=valid,
        heads=heads,
        size=valid.float(),
        scaling=0.3,
        policy=AttentionPolicy(),
        needs=ALL_TAPS,
    )
    for row, length in enumerate(lengths):
        live = slice(0, length)
        probability, output = exact_attention(query[row][:, live], key[row][:, live], value[row][:, live], 0.3)
        alive = heads[row][:, None]
        wanted = {
            Signal.ATTENTION_COLUMN_SUM: probability.sum(1) * alive,
            Signal.ATTENTION_DIAGONAL: probability.diagonal(dim1=1, dim2=2) * alive,
            Signal.ATTENTION_CLS_ROW: probability[:, 0] * alive,
            Signal.HEAD_ABSOLUTE_SUM: output.abs().sum((1, 2)) * alive[:, 0],
        }
        for signal, reference in wanted.items():
            got = attended.signals[signal][row]
            if got.dim() == 2:
                assert not got[:, length:].any(), signal
                got = got[:, live]
            assert relative(got, reference) < 1e-6, signal
        assert relative(attended.output[row, live], (output * alive[..., None]).transpose(0, 1)) < 1e-6
        assert torch.equal(attended.signals[Signal.KEY], key)


def test_trap_5_an_empty_sequence_is_refused() -> None:
    model = tiny_encoder()
    batch = ragged_batch((4, 3))
    batch["attention_mask"][1] = 0
    with topsieve.reduce(model, "spatten"), pytest.raises(InputError, match="sequence 1 of the batch has no tokens"):
        model(**batch)


def test_trap_7_padding_in_front_is_found_where_it_is() -> None:
    """Positions are columns of the input batch, and the first live token is the CLS token, wherever padding stands."""
    model = tiny_encoder("roberta")  # counts positions from the ids, so padding in front does not move them
    batch = ragged_batch((9, 5))
    shifted = {name: torch.stack([row[0], row[1].roll(4)]) for name, row in batch.items()}
    for method in ("spatten", "evit", "tome"):
        with torch.no_grad(), topsieve.reduce(model, method) as reduced:
            hidden = model(**shifted).last_hidden_state
            positions, valid = reduced.positions, reduced.valid
            single = model(**alone(batch, 1)).last_hidden_state
            assert (positions[1][valid[1]] - 4).clamp(min=-1).tolist() == reduced.positions[0].tolist()
            assert relative(hidden[1][valid[1]], single[0]) < 1e-5


def test_trap_8_size_bias_attends_a_merged_token_as_often_as_its_sources() -> None:
    """A key of size 3 gets what three equal keys of size 1 get together."""
    torch.manual_seed(2)
    query, key, value = (torch.randn(1, 2, 4, 8) for _ in range(3))
    ones = torch.ones(1, 4, dtype=torch.bool)
    options = {"heads": torch.ones(1, 2, dtype=torch.bool), "scaling": 0.5, "needs": frozenset()}
    merged = attend(
        query,
        key,
        value,
        valid=ones,
        size=torch.tensor([[1.0, 3, 1, 2]]),
        policy=AttentionPolicy(size_bias=True),
        **options,
    )
    source = torch.tensor([0, 1, 1, 1, 2, 3, 3])
    spread = attend(
        query[:, :, source],
        key[:, :, source],
        value[:, :, source],
        valid=torch.ones(1, 7, dtype=torch.bool),
        size=torch.ones(1, 7),
        policy=AttentionPolicy(),
        **options,
    )
    assert relative(merged.output, spread.output[:, [0, 1, 4, 5]]) < 1e-6


def test_what_is_not_available_is_refused() -> None:
    model = tiny_encoder()
    batch = ragged_batch((4, 3))
    with topsieve.reduce(model, "spatten") as reduced:
        with pytest.raises(InputError, match="output_attentions"):
            model(**batch, output_attentions=True)
        with pytest.raises(InputError, match=r"attention_mask: wrong shape .*\(2, 4\)"):
            model(input_ids=batch["input_ids"], attention_mask=torch.ones(2, 1, 4, 4))
        with pytest.raises(InputError, match="no forward pass"):
            _ = reduced.record
    with pytest.raises(InputError, match="not a Hugging Face model"):
        topsieve.reduce(torch.nn.Linear(2, 2), "spatten")
    model.config._attn_implementation_internal = "flex_attention"
    with pytest.raises(InputError, match=r"unsupported attention implementation .*allowed: eager, sdpa"):
        topsieve.reduce(model, "spatten")
