"""MrT5: its gate and positions against plain loops, soft deletion against masks, the controller, and MiniLM's gate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import T5Config, T5EncoderModel

import topsieve
from software.encoders import ragged_batch, tiny_encoder
from software.toy_encoder import SHAPE, batch, run
from topsieve.delete_gate.segments import BYTE_SEPARATORS, segments
from topsieve.delete_gate.soft import (
    ShareController,
    deleted_share,
    deletes_hard,
    deletion_loss,
    gumbel_noise,
    score_penalty,
    soft_mask,
)
from topsieve.methods import build
from topsieve.models.attention import softmax_one
from topsieve.reduction import Budget, Context, Signal
from topsieve.reduction.scorers import DeleteGate, FixedGate, RandomGate
from topsieve.reduction.scorers.delete_gate import EPSILON, gate_unit
from topsieve.reduction.selectors import Undeleted
from topsieve_sim.errors import InputError
from topsieve_sim.trace.ops import Norm, Projection, Threshold


def context(valid: torch.Tensor, hidden: torch.Tensor | None = None) -> Context:
    place = torch.arange(valid.shape[1]).expand(valid.shape).masked_fill(~valid, -1)
    signals = {} if hidden is None else {Signal.HIDDEN: hidden}
    return Context(SHAPE, 2, valid, place, valid.double(), valid.sum(-1), signals)


def test_the_vector_of_the_specification() -> None:
    """Section 24: deleted places of a row are not copies of token 0 here, but dead."""
    keep = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0, 1, 0, 0, 1]]).bool()
    gate = torch.where(keep, -1.0, -29.0)
    found = Undeleted().select(gate, Budget(threshold=-15.0), context(torch.ones_like(keep)))
    assert found.valid.tolist() == [[True] * 3, [True, False, False], [True, True, False]]
    assert found.keep.clamp(min=0).masked_fill(~found.valid, 0).tolist() == [[0, 2, 3], [0, 0, 0], [1, 4, 0]]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 10_000), st.sampled_from([-30.0, -10.0]))
@settings(max_examples=30, deadline=None)
def test_the_gate_and_its_choice_are_the_text_s(lengths: list[int], seed: int, scale: float) -> None:
    """G = k sigmoid(-(w x / rms(x) g + c)); kept: G > k / 2, or the first token where there is none."""
    hidden, valid = batch(lengths, seed)
    gate = gate_unit("", SHAPE.width, seed % 7)
    weight, norm = gate.unit.weight[0].double().numpy(), gate.norm.weight.double().numpy()
    seen = DeleteGate(scale, "", seed % 7).score(context(valid, hidden))
    found = Undeleted().select(seen, Budget(threshold=scale / 2), context(valid))
    for row, length in enumerate(lengths):
        kept = []
        for token in range(length):
            x = hidden[row, token].numpy()
            logit = float(sum(weight * norm * x / math.sqrt(np.mean(x * x) + EPSILON))) + 1.0
            value = scale / (1 + math.exp(logit))
            assert abs(value - float(seen[row, token])) <= 1e-12 * -scale
            if value > scale / 2:
                kept.append(token)
        assert found.keep[row][found.valid[row]].tolist() == (kept or [0])


def test_a_gate_at_the_threshold_deletes_and_the_official_code_refuses_an_empty_batch() -> None:
    valid = torch.ones(1, 3, dtype=torch.bool)
    at = Undeleted(True).select(torch.tensor([[-15.0, -14.0, -15.0]]), Budget(threshold=-15.0), context(valid))
    assert at.keep.tolist() == [[1]]
    gone = torch.tensor([[-16.0, -29.0, -17.0]])
    assert Undeleted().select(gone, Budget(threshold=-15.0), context(valid)).keep.tolist() == [[0]]
    with pytest.raises(InputError, match="deletes every token"):
        Undeleted(True).select(gone, Budget(threshold=-15.0), context(valid))


@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(0, 1000), st.sampled_from([0.0, 0.3, 0.5, 1.0])
)
@settings(max_examples=30, deadline=None)
def test_the_plain_gates_of_the_paper(lengths: list[int], seed: int, share: float) -> None:
    """Random: int(p n) of each sequence, p from the normal distribution; fixed: the first ceil((1 - share) n) of a unit."""
    hidden, valid = batch(lengths, seed)
    given = context(valid, hidden)
    p = 0.1 * float(torch.randn((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)) + share
    gone = RandomGate(-30.0, share, 0.1, seed).score(given) == -30
    assert gone[valid].any() or not any(int(min(max(p, 0), 1) * n) for n in lengths)
    assert (gone & valid).sum(-1).tolist() == [int(min(max(p, 0), 1) * n) for n in lengths]
    draw = torch.Generator().manual_seed(seed)
    units = torch.randint(0, 2, valid.shape, generator=draw).cumsum(-1)
    given.signals[Signal.UNIT] = units
    kept = FixedGate(-30.0, share).score(given) == 0
    for row, length in enumerate(lengths):
        wanted = []
        for unit in dict.fromkeys(units[row, :length].tolist()):
            places = [j for j in range(length) if units[row, j] == unit]
            wanted += places[: math.ceil(round((1 - share) * len(places), 9))]
        assert kept[row, :length].nonzero().flatten().tolist() == wanted


def test_separators_end_segments_of_bytes() -> None:
    text = "a bc,d\n\ne"
    ids = torch.tensor([[ord(letter) + 3 for letter in text]])
    assert segments(ids).tolist() == [[0, 0, 1, 1, 1, 2, 2, 3, 4]]
    assert len(BYTE_SEPARATORS) == 36
    torch.manual_seed(0)
    model = T5EncoderModel(T5Config(vocab_size=384, d_model=64, d_kv=16, d_ff=128, num_heads=4, num_layers=4)).eval()
    with torch.no_grad(), topsieve.reduce(model, "mrt5:layer=2,gate=fixed", units=segments(ids)) as reduced:
        model(input_ids=ids)
    assert reduced.positions.tolist() == [[0, 2, 3, 5, 7, 8]]
    with torch.no_grad(), topsieve.reduce(model, "mrt5:layer=2,gate=fixed") as reduced:
        model(input_ids=ids)
    assert reduced.valid.sum() == len(text)


def test_the_log_sigmoid_gate_and_its_noise() -> None:
    hidden, valid = batch([9], 3)
    gate = gate_unit("", SHAPE.width, 3).double()
    logit = gate.unit(hidden * (hidden.pow(2).mean(-1, keepdim=True) + EPSILON).rsqrt())[..., 0]
    assert (
        DeleteGate(-30.0, "", 3, "log-sigmoid").score(context(valid, hidden)) - logit.sigmoid().log()
    ).norm() <= 1e-12
    noise = gumbel_noise((1, 9), torch.Generator().manual_seed(0))
    assert (gate(hidden, -30.0, noise=noise) + 30 * (-logit - noise).sigmoid()).norm() <= 1e-12 * 30
    many = gumbel_noise((200_000,), torch.Generator().manual_seed(1))
    # Mean and variance of the distribution, within four of their own deviations.
    assert abs(many.mean() - 0.5772157) < 4 * math.pi / math.sqrt(6 * 200_000)
    assert abs(many.var() - math.pi**2 / 6) < 4 * math.sqrt((12 / 5 + 2) / 200_000) * math.pi**2 / 6


def test_softmax_with_one_more() -> None:
    """exp(x - m) / (sum exp(x - m) + exp(-m)), in every layer of an encoder, and shares that may come to less than one."""
    x = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 8
    most = x.amax(-1, keepdim=True)
    wanted = (x - most).exp() / ((x - most).exp().sum(-1, keepdim=True) + (-most).exp())
    assert (softmax_one(x) - wanted).norm() <= 1e-12 * wanted.norm()
    assert softmax_one(torch.full((1, 3), -1e4)).sum() == 0
    model, inputs = tiny_encoder(attention="eager"), ragged_batch((7, 5))
    with torch.no_grad(), topsieve.reduce(model, "mrt5:layer=2,softmax_one=true,threshold=-40") as reduced:
        together = model(**inputs).last_hidden_state
    assert reduced.valid.sum() == 12
    layer, mask = model.encoder.layer[0], inputs["attention_mask"].bool()
    with torch.no_grad():
        x = model.embeddings(inputs["input_ids"])
        for layer in model.encoder.layer:
            own = layer.attention.self
            q, k, v = (
                f(x).unflatten(-1, (own.num_attention_heads, -1)).transpose(1, 2)
                for f in (own.query, own.key, own.value)
            )
            scores = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).masked_fill(~mask[:, None, None], -torch.inf)
            attended = (scores.exp() / (1 + scores.exp().sum(-1, keepdim=True)) @ v).transpose(1, 2).flatten(2)
            inner = layer.attention.output(attended, x)
            x = layer.output(layer.intermediate(inner), inner)
    assert (together[mask] - x[mask]).norm() <= 1e-5 * x[mask].norm()


def test_what_training_adds() -> None:
    scores = torch.tensor([[[[6.0, 9.0], [5.0, -3.0]]]])
    assert float(score_penalty(scores, torch.ones(1, 1, 1, 2, dtype=torch.bool))) == (1 + 4) / 4
    assert float(score_penalty(scores, torch.tensor([True, False]))) == 0.5
    controller = ShareController(0.5, delay=2)
    for _ in range(2):
        controller = controller.after(0.0)
        assert (controller.weight, controller.p, controller.i) == (0, 0, 0)
    assert controller.after(0.0).weight == pytest.approx(0.1 * 0.5 * 0.5 + 1e-5 * 0.5)
    draw = torch.Generator().manual_seed(0)
    assert [deletes_hard(p, draw) for p in (0.0, 1.0)] == [False, True]


def test_it_acts_once_before_its_layer() -> None:
    hidden, valid = batch([11, 9], seed=6)
    result = run(build("mrt5:layer=2"), hidden, valid)
    (decision,) = result.decisions
    assert decision.step.layer == 1
    assert (decision.tokens_out < decision.tokens_in).any()
    scores = decision.reduction.scores
    kept = decision.reduction.sources().any(1)
    assert kept.equal(valid & (scores > -15))
    by_count = run(build("mrt5:layer=2", keep=0.5), hidden, valid)
    assert by_count.valid.sum(-1).tolist() == [5, 4]


def test_soft_deletion_of_shut_gates_is_hard_deletion() -> None:
    """Where gates are 0 and -infinity the mask of training gives the rows that inference gathers: 1e-6 in float32."""
    model = tiny_encoder(attention="eager")
    inputs = ragged_batch((12,))
    with torch.no_grad(), topsieve.reduce(model, "mrt5:layer=2") as reduced:
        hard = model(**inputs).last_hidden_state
        (decision,) = reduced.record.layers[1].decisions
    kept = decision.reduction.sources().any(1)
    assert 1 < kept.sum() < 12
    with torch.no_grad():
        hidden = model(**inputs, output_hidden_states=True).hidden_states[2]
        gate = torch.where(kept, 0.0, float("-inf"))
        mask = soft_mask(gate, torch.ones_like(kept), -30.0).expand(-1, 1, 12, -1)
        for layer in model.encoder.layer[2:]:
            hidden = layer(hidden, mask)
    assert (hidden[kept] - hard[0]).norm() <= 1e-6 * hard.norm()


def test_the_controller_follows_its_recurrence() -> None:
    controller, p, i = ShareController(0.5, k_i=0.01), 0.0, 0.0
    assert controller.weight == 0
    for share in (0.1, 0.9, 0.4, 1.0, 1.0, 1.0):
        controller = controller.after(share)
        error = 0.5 - share
        p, i = 0.9 * p + 0.1 * 0.5 * error, i + 0.01 * error
        assert controller.weight == pytest.approx(max(0.0, p + i), abs=1e-15)
    gate, valid = torch.tensor([[-1.0, -20.0, -30.0]]), torch.tensor([[True, True, False]])
    assert deleted_share(gate, valid, -15.0) == 0.5
    assert float(deletion_loss(gate, valid)) == -10.5
    assert soft_mask(gate, valid, -30.0).flatten().tolist() == [-1.0, -20.0, -30.0]


def test_in_a_byte_level_t5_the_bias_keeps_the_original_distances() -> None:
    """Steps 4 to 6 by hand on the specification's small T5: kept rows of hidden states, and of the bias on both axes."""
    torch.manual_seed(0)
    model = T5EncoderModel(T5Config(vocab_size=384, d_model=64, d_kv=16, d_ff=128, num_heads=4, num_layers=4)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "relative_attention_bias" in name or ".q." in name:
                parameter.normal_(std=0.5)
    ids = torch.randint(3, 259, (1, 14), generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), topsieve.reduce(model, "mrt5:layer=2,seed=1") as reduced:
        found = model(input_ids=ids).last_hidden_state[0]
    (decision,) = reduced.record.layers[1].decisions
    kept = decision.reduction.keep[0]
    assert 1 < len(kept) < 14
    stack = model.encoder
    with torch.no_grad():
        x = stack.embed_tokens(ids)[0]
        bias = stack.block[0].layer[0].SelfAttention.compute_bias(14, 14)[0]
        for index, block in enumerate(stack.block):
            if index == 2:
                gate = gate_unit("", 64, 1)
                value = -30 * torch.sigmoid(-gate.unit(x * (x.pow(2).mean(-1, keepdim=True) + EPSILON).rsqrt()))[:, 0]
                assert kept.tolist() == (value > -15).nonzero().flatten().tolist()
                x, bias = x[kept], bias[:, kept][:, :, kept]
            attention, normed = block.layer[0].SelfAttention, block.layer[0].layer_norm(x)
            query, key, value = (getattr(attention, n)(normed).unflatten(-1, (4, 16)).transpose(0, 1) for n in "qkv")
            probability = (query @ key.transpose(1, 2) + bias).softmax(-1)
            x = x + attention.o((probability @ value).transpose(0, 1).flatten(1))
            x = block.layer[1](x)
        wanted = stack.final_layer_norm(x)
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()


def test_the_trace_holds_the_gate() -> None:
    model = tiny_encoder()
    with torch.no_grad(), topsieve.reduce(model, "mrt5:layer=2") as reduced:
        model(**ragged_batch((12,)))
    trace = topsieve.lower(reduced.record)
    gate = [op for op in trace.ops if op.layer == 1 and isinstance(op, Norm | Threshold)]
    unit = [op for op in trace.ops if isinstance(op, Projection) and op.outputs == 1]
    assert [op.layer for op in unit] == [1]
    assert gate == [Norm(layer=1, rows=12, width=32), Threshold(layer=1, n=12, kept=int(reduced.valid.sum()))]
    tokens = [int(layer.attention_tokens[0]) for layer in reduced.record.layers]
    assert tokens == [12, 12, *[int(reduced.valid.sum())] * 2]


def test_a_file_that_is_no_gate_is_named(tmp_path) -> None:
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"nothing")
    with torch.no_grad(), pytest.raises(InputError, match=r"weights: .*wrong\.safetensors"):
        run(build(f"mrt5:weights={wrong}"), *batch([4], 0))


def test_the_gate_trained_here_tells_tokens_apart() -> None:
    """MiniLM on the Python reference: at the same number of tokens the trained gate keeps more than one of chance."""
    from topsieve.corpus import python_reference
    from topsieve.fidelity import FidelityTest
    from topsieve.pretrained import load_pretrained

    test = FidelityTest(load_pretrained(), python_reference(6), queries=3)
    trained, chance = (test.measure(f"mrt5:keep=0.5{more}") for more in (",weights=minilm", ""))
    assert trained.flops == chance.flops < 0.8 * trained.dense_flops
    assert trained.cosine > 0.88 > 0.75 > chance.cosine
