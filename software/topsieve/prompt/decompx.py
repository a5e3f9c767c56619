"""DecompX: the hidden state of an encoder, and the scores of its head, as exact sums over the input tokens.

Specification `methods-text`, section 3b: biases shared out by absolute dot products, activations by their slope from the
origin, LayerNorms, FFN, pooler and classifier included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from topsieve.prompt.trail import LayerTrail, normalised, trail
from topsieve.reduction.roles import ModelShape
from topsieve_sim.errors import InputError
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Projection, Similarity

# Keeps shares and slopes finite where there is nothing to share or the activation is at its origin.
TINY = 1e-12

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Head:
    """What makes scores of the first token: a linear map, an activation, a linear map."""

    dense: nn.Linear
    activation: Activation
    output: nn.Linear


def head_of(model: Any) -> Head:
    """The classification head of a BERT, RoBERTa or ELECTRA sequence classifier.

    Raises
    ------
    InputError
        `model` has none that is known.
    """
    classifier: Any = getattr(model, "classifier", None)
    if isinstance(classifier, nn.Linear) and getattr(model.base_model, "pooler", None) is not None:
        return Head(model.base_model.pooler.dense, torch.tanh, classifier)
    if hasattr(classifier, "out_proj"):
        return Head(classifier.dense, getattr(classifier, "activation", torch.tanh), classifier.out_proj)
    raise InputError("has no classification head", field="scorer", value=type(model).__name__)


def shared(parts: Tensor, bias: Tensor) -> Tensor:
    """`parts` [..., n, C] with `bias` [C] shared out among the n by the absolute dot products with it."""
    weight = (parts @ bias).abs()
    weight = weight / (weight.sum(-1, keepdim=True) + TINY)
    return parts + weight.unsqueeze(-1) * bias


def slope(activation: Activation, x: Tensor) -> Tensor:
    """activation(x) / x."""
    return activation(x) / (x + TINY)


def decomposed(model: Any, ids: list[int]) -> Tensor:
    """float [n, n, C]: row i, column j is what token j contributes to the last hidden state of token i.

    Summed over j it is the hidden state, but for rounding and the shares' `TINY`.
    """
    layers, _ = trail(model, ids)
    parts = _first(layers[0])
    for number, layer in enumerate(layers):
        if number:
            parts = _attended(layer, parts)
        parts = _through(layer, parts)
    return parts


def attributed(parts: Tensor, head: Head) -> Tensor:
    """float [n, labels]: what each token contributes to the scores of `head`; `parts` as of `decomposed`."""
    first = shared(parts[0] @ head.dense.weight.T, head.dense.bias)
    first = first * slope(head.activation, first.sum(0))
    return shared(first @ head.output.weight.T, head.output.bias)


def _first(layer: LayerTrail) -> Tensor:
    """Attention of the first layer: each token stands for itself, its value's bias included."""
    projected = torch.einsum("hjd,hdc->hjc", layer.value, layer.output_weight)
    parts = torch.einsum("hij,hjc->ijc", layer.probability, projected)
    parts = parts + torch.diag_embed(layer.hidden.T).permute(1, 2, 0)
    return shared(parts, layer.layer.attention.output.dense.bias)


def _attended(layer: LayerTrail, parts: Tensor) -> Tensor:
    """Attention of a later layer: values are made of the parts; the biases of values and output come as one."""
    own, output = layer.layer.attention.self, layer.layer.attention.output.dense
    heads, head_dim = layer.value.shape[0], layer.value.shape[2]
    value = (parts @ own.value.weight.T).unflatten(-1, (heads, head_dim))
    mixed = torch.einsum("hik,kjhd->ijhd", layer.probability, value).flatten(2)
    bias = output.weight @ own.value.bias + output.bias
    return shared(mixed @ output.weight.T + parts, bias)


def _through(layer: LayerTrail, parts: Tensor) -> Tensor:
    """From behind attention's residual to the end of the layer."""
    first, second = layer.layer.attention.output.LayerNorm, layer.layer.output.LayerNorm
    dense, back = layer.layer.intermediate.dense, layer.layer.output.dense
    between = shared(normalised(parts, layer.attended, first), first.bias)
    inner = shared(between @ dense.weight.T, dense.bias)
    inner = inner * slope(layer.layer.intermediate.intermediate_act_fn, layer.expanded).unsqueeze(1)
    summed = shared(inner @ back.weight.T, back.bias) + between
    return shared(normalised(summed, layer.summed, second), second.bias)


def decompx_work(shape: ModelShape, tokens: int) -> tuple[Op, ...]:
    """What taking the layers apart costs beyond the pass itself: every map on n x n vectors, and their mixing."""
    ops: list[Op] = []
    pairs, width, hidden = tokens * tokens, shape.width, shape.ffn_width
    for layer in range(shape.layers):
        rows = tokens if layer == 0 else pairs
        ops.append(Projection(layer=layer, role="other", tokens=rows, inputs=width, outputs=width))
        # n x n probabilities of each head on the vectors of n tokens, each in one part or in n.
        ops.append(Similarity(layer=layer, rows_a=tokens, rows_b=rows * width // tokens, width=tokens))
        ops.append(Projection(layer=layer, role="other", tokens=pairs, inputs=width, outputs=width))
        ops.append(Projection(layer=layer, role="other", tokens=pairs, inputs=width, outputs=hidden))
        ops.append(Projection(layer=layer, role="other", tokens=pairs, inputs=hidden, outputs=width))
    return tuple(ops)
