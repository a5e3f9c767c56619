"""Which Hugging Face models a reduction can be applied to, and where their parts are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from topsieve.reduction.roles import ModelShape
from topsieve_sim.errors import InputError

# Post-LN encoders whose layer is `attention` (with `self` and `output`), `intermediate`, `output`: the hidden states between
# attention and FFN leave the `attention` module, so a hook can reduce them.
POST_LN_ENCODERS = ("bert", "camembert", "electra", "roberta", "xlm-roberta")

ATTENTION_IMPLEMENTATIONS = ("eager", "sdpa")

# Reductions run under an attention implementation of this prefix and a number.
REDUCED_PREFIX = "topsieve_"


@dataclass(frozen=True)
class EncoderLayer:
    """Modules of one layer: `self_attention` calls the attention function, `attention` ends before the FFN."""

    layer: nn.Module
    attention: nn.Module
    self_attention: nn.Module


@dataclass(frozen=True)
class Encoder:
    """A supported model: the module that takes `input_ids`, its shape and its layers."""

    base: PreTrainedModel
    shape: ModelShape
    layers: tuple[EncoderLayer, ...]


def encoder_of(model: object) -> Encoder:
    """The parts of `model`.

    Raises
    ------
    InputError
        `model` is not a Hugging Face model of a supported family, is a decoder, runs an attention implementation other
        than eager and SDPA, or is already under a reduction.
    """
    families = ", ".join(POST_LN_ENCODERS)
    if not isinstance(model, PreTrainedModel):
        raise InputError(
            "not a Hugging Face model",
            field="model",
            value=type(model).__name__,
            allowed=f"models of the families {families}",
        )
    base: Any = model.base_model
    config: Any = base.config
    if config.model_type not in POST_LN_ENCODERS:
        raise InputError("unsupported model family", field="model", value=config.model_type, allowed=families)
    if config.is_decoder or config.add_cross_attention:
        raise InputError(
            "a decoder cannot be reduced: its cache and its causal mask would no longer fit",
            field="model",
            value=f"{config.model_type} with is_decoder",
            allowed=f"encoders of the families {families}",
        )
    check_attention(config._attn_implementation)
    layers = tuple(EncoderLayer(layer, layer.attention, layer.attention.self) for layer in base.encoder.layer)
    shape = ModelShape(
        name=Path(config._name_or_path).name or config.model_type,  # the name, not the folder on this machine
        family=config.model_type,
        layers=len(layers),
        heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads,
        head_dim=config.hidden_size // config.num_attention_heads,
        width=config.hidden_size,
        ffn_width=config.intermediate_size,
    )
    return Encoder(base, shape, layers)


def check_attention(implementation: str) -> None:
    """Raise `InputError` unless a reduction can stand in for the attention implementation of this name."""
    if implementation.startswith(REDUCED_PREFIX):
        raise InputError("the model is already under a reduction", field="model")
    if implementation not in ATTENTION_IMPLEMENTATIONS:
        raise InputError(
            "unsupported attention implementation",
            field="model",
            value=implementation,
            allowed=", ".join(ATTENTION_IMPLEMENTATIONS),
        )
