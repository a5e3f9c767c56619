"""What an encoder of the BERT family computes on the way, for attributions that take it apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from topsieve.models.families import POST_LN_ENCODERS, Encoder, Multimodal, parts_of
from topsieve.reduction.roles import ModelShape
from topsieve_sim.errors import InputError


@dataclass(frozen=True)
class LayerTrail:
    """One layer on one sequence of n tokens, with its modules.

    Parameters
    ----------
    hidden : float [n, C], entered the layer.
    probability : float [H, n, n], rows of queries.
    value : float [H, n, d], biases included.
    attended : float [n, C], what the first LayerNorm took: projected attention and the residual.
    between : float [n, C], what it put out.
    expanded : float [n, F], what the FFN's activation took.
    summed : float [n, C], what the second LayerNorm took.
    """

    layer: Any
    hidden: Tensor
    probability: Tensor
    value: Tensor
    attended: Tensor
    between: Tensor
    expanded: Tensor
    summed: Tensor

    @property
    def output_weight(self) -> Tensor:
        """The output projection of attention by heads, float [H, d, C]: row vectors times it."""
        weight: Tensor = self.layer.attention.output.dense.weight
        heads, _, head_dim = self.value.shape
        return weight.T.reshape(heads, head_dim, -1)


def trail(model: Any, ids: list[int]) -> tuple[list[LayerTrail], Tensor]:
    """The layers of `model` on the token ids, and the last hidden state, float [n, C].

    Parameters
    ----------
    model : an encoder of a family of `topsieve.models.families.POST_LN_ENCODERS`, alone or inside a task model.

    Raises
    ------
    InputError
        another kind of model.
    """
    encoder = _encoder(model)
    base: Any = encoder.base
    tokens = torch.tensor([ids], device=base.device)
    hidden: Tensor = base.embeddings(input_ids=tokens)
    if hasattr(base, "embeddings_project"):
        hidden = base.embeddings_project(hidden)
    hidden = hidden[0]
    layers = []
    for part in encoder.layers:
        layer: Any = part.layer
        query, key, value = (
            x.unflatten(-1, (encoder.shape.heads, -1)).transpose(0, 1)
            for x in (part.query(hidden), part.key(hidden), layer.attention.self.value(hidden))
        )
        probability = (query @ key.transpose(1, 2) * query.shape[-1] ** -0.5).softmax(-1)
        mixed = (probability @ value).transpose(0, 1).flatten(1)
        attended = layer.attention.output.dense(mixed) + hidden
        between = layer.attention.output.LayerNorm(attended)
        expanded = layer.intermediate.dense(between)
        summed = layer.output.dense(layer.intermediate.intermediate_act_fn(expanded)) + between
        layers.append(LayerTrail(layer, hidden, probability, value, attended, between, expanded, summed))
        hidden = layer.output.LayerNorm(summed)
    return layers, hidden


def shape_of(model: Any) -> ModelShape:
    """The shape of the encoder in `model`."""
    return _encoder(model).shape


def normalised(parts: Tensor, whole: Tensor, norm: nn.LayerNorm) -> Tensor:
    """A LayerNorm applied to summands: without its bias, with the deviation of the sum.

    Parameters
    ----------
    parts : float [n, m, C], the summands of each of n vectors. whole : float [n, C], these.
    """
    deviation = (whole.var(-1, unbiased=False) + norm.eps).sqrt()[:, None, None]
    return (parts - parts.mean(-1, keepdim=True)) / deviation * norm.weight


def _encoder(model: Any) -> Encoder:
    parts = parts_of(model)
    if isinstance(parts, Multimodal) or parts.shape.family not in POST_LN_ENCODERS:
        raise InputError("not an encoder of the BERT family", field="scorer", value=type(model).__name__)
    return parts
