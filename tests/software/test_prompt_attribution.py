"""DecompX and GlobEnc against the models they take apart, and against the specification in plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    BertForSequenceClassification,
    ElectraForSequenceClassification,
    RobertaForSequenceClassification,
)

from software.encoders import tiny_config, tiny_encoder
from topsieve.prompt.decompx import attributed, decomposed, head_of
from topsieve.prompt.globenc import globenc, layer_norms
from topsieve.prompt.trail import trail
from topsieve_sim.errors import InputError

torch.set_num_threads(1)

Array = NDArray[np.float64]
CLASSIFIERS = {
    "bert": BertForSequenceClassification,
    "roberta": RobertaForSequenceClassification,
    "electra": ElectraForSequenceClassification,
}
IDS = [3, 17, 42, 5, 17, 99]
# The sums miss 1e-12 of what each bias shares out and of each activation's slope, some two hundred times a layer, and
# activations near their origin magnify it: about 1e-8 in float64.
EXACT = 1e-8


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


def sequence_classifier(family: str) -> torch.nn.Module:
    torch.manual_seed(3)
    model = CLASSIFIERS[family](tiny_config(family, num_labels=3))
    for parameter in model.parameters():
        # Biases and LayerNorms start at 0 and 1, which would hide them.
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.5)
    return model.double().eval()


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_contributions_add_up_to_the_hidden_state_and_to_the_scores(family: str) -> None:
    model = sequence_classifier(family)
    with torch.no_grad():
        out = model(input_ids=torch.tensor([IDS]), output_hidden_states=True)
        layers, hidden = trail(model, IDS)
        parts = decomposed(model, IDS)
        scores = attributed(parts, head_of(model))
    assert relative(hidden, out.hidden_states[-1][0]) < 1e-12
    for number, layer in enumerate(layers):
        assert relative(layer.hidden, out.hidden_states[number][0]) < 1e-12
    assert relative(parts.sum(1), hidden) < EXACT
    assert scores.shape == (len(IDS), 3)
    assert relative(scores.sum(0), out.logits[0]) < EXACT
    assert float(scores.std(0).min()) > 1e-3, "the tokens do not share alike"


def test_one_token_is_everything() -> None:
    model = tiny_encoder("bert").double()
    with torch.no_grad():
        parts = decomposed(model, IDS[:1])
        _, hidden = trail(model, IDS[:1])
        assert relative(parts[:, 0], hidden) < EXACT
        assert globenc(model, IDS[:1]).tolist() == [1.0]


def test_what_cannot_be_taken_apart_is_refused() -> None:
    with pytest.raises(InputError, match="has no classification head"):
        head_of(tiny_encoder("bert"))
    with pytest.raises(InputError, match="not a Hugging Face model"):
        trail(torch.nn.Linear(2, 2), IDS)


def array(tensor: torch.Tensor) -> Array:
    found: Array = tensor.detach().numpy()
    return found


def linear(module: torch.nn.Module) -> tuple[Array, Array]:
    return array(module.weight), array(module.bias)  # type: ignore[arg-type]


def gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


def biased(vectors: list[Array], bias: Array) -> list[Array]:
    """The vectors of one token with the bias shared out among them."""
    weights = [abs(float(vector @ bias)) for vector in vectors]
    total = sum(weights) + 1e-12
    return [vector + weight / total * bias for vector, weight in zip(vectors, weights, strict=True)]


def centred(vector: Array, whole: Array, norm: torch.nn.Module) -> Array:
    variance = ((whole - whole.mean()) ** 2).mean()
    return (vector - vector.mean()) / math.sqrt(variance + norm.eps) * array(norm.weight)  # type: ignore[arg-type]


def loops(model: torch.nn.Module, ids: list[int]) -> tuple[list[list[Array]], list[Array]]:
    """DecompX's contributions [i][j], and GlobEnc's norms of each layer, vector by vector."""
    layers, _ = trail(model, ids)
    n = len(ids)
    vectors: list[list[Array]] = []
    norms = []
    for number, facts in enumerate(layers):
        layer = facts.layer
        wv, bv = linear(layer.attention.self.value)
        wo, bo = linear(layer.attention.output.dense)
        w1, b1 = linear(layer.intermediate.dense)
        w2, b2 = linear(layer.output.dense)
        ln1, ln2 = layer.attention.output.LayerNorm, layer.output.LayerNorm
        alpha, hidden = array(facts.probability), array(facts.hidden)
        heads = len(alpha)
        d = len(wv) // heads
        part = [slice(h * d, (h + 1) * d) for h in range(heads)]

        norm = np.zeros((n, n))
        for i in range(n):
            for j in range(n):
                value = wv @ hidden[j] + bv
                x = sum(alpha[h, i, j] * (wo[:, part[h]] @ value[part[h]]) for h in range(heads))
                x = x + (hidden[i] if i == j else 0)
                x = centred(x, array(facts.attended)[i], ln1)
                norm[i, j] = math.sqrt((centred(x, array(facts.summed)[i], ln2) ** 2).sum())
        norms.append(norm)

        after: list[list[Array]] = []
        for i in range(n):
            row = []
            for j in range(n):
                x = np.zeros(hidden.shape[1])
                for h in range(heads):
                    if number == 0:
                        x += alpha[h, i, j] * (wo[:, part[h]] @ (wv @ hidden[j] + bv)[part[h]])
                    else:
                        for k in range(n):
                            x += alpha[h, i, k] * (wo[:, part[h]] @ (wv @ vectors[k][j])[part[h]])
                row.append(x + (vectors[i][j] if number else (hidden[i] if i == j else 0)))
            row = biased(row, bo if number == 0 else wo @ bv + bo)
            row = biased([centred(x, array(facts.attended)[i], ln1) for x in row], array(ln1.bias))
            inner = biased([w1 @ x for x in row], b1)
            pre = array(facts.expanded)[i]
            slopes = np.array([gelu(float(z)) / (float(z) + 1e-12) for z in pre])
            outer = biased([w2 @ (z * slopes) for z in inner], b2)
            row = [x + y for x, y in zip(row, outer, strict=True)]
            after.append(biased([centred(x, array(facts.summed)[i], ln2) for x in row], array(ln2.bias)))
        vectors = after
    return vectors, norms


def test_both_equal_the_specification_in_loops() -> None:
    model = sequence_classifier("bert")
    ids = IDS[:4]
    with torch.no_grad():
        vectors, norms = loops(model, ids)
        parts = decomposed(model, ids)
        scores = attributed(parts, head_of(model))
        layers, _ = trail(model, ids)
        rolled = globenc(model, ids)
        for wanted, layer in zip(norms, layers, strict=True):
            assert relative(layer_norms(layer), torch.from_numpy(wanted)) < 1e-12
    # The same numbers in another order of float64 sums.
    assert relative(parts, torch.from_numpy(np.array(vectors))) < 1e-11

    wd, bd = linear(model.bert.pooler.dense)
    wc, bc = linear(model.classifier)
    dense = biased([wd @ vector for vector in vectors[0]], bd)
    p = sum(dense)
    slopes = np.array([math.tanh(float(x)) / (float(x) + 1e-12) for x in p])
    wanted = biased([wc @ (x * slopes) for x in dense], bc)
    assert relative(scores, torch.from_numpy(np.array(wanted))) < 1e-11

    row = norms[0]
    for norm in norms[1:]:
        row = norm @ row
    assert relative(rolled, torch.from_numpy(row[0] / row[0].max())) < 1e-12
