"""Which Hugging Face decoders can run under a cache method, and where their parts are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from topsieve.cache.rotary import ROTARY_FAMILIES, Rotary
from topsieve.models.families import MULTIMODAL, check_attention
from topsieve.reduction.roles import ModelShape
from topsieve_sim.errors import InputError

LEARNED_POSITIONS = ("gpt2",)
DECODERS = (*LEARNED_POSITIONS, *ROTARY_FAMILIES)

# Rotary tables that change with the length of the sequence cannot be undone from the key alone.
STATIC_ROPE = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True)
class Decoder:
    """A supported model: the module that takes `input_ids`, its shape, its attention modules, positions and layers."""

    base: PreTrainedModel
    shape: ModelShape
    attentions: tuple[nn.Module, ...]
    rotary: Rotary | None
    blocks: tuple[nn.Module, ...]


def is_decoder(model: object) -> bool:
    """Whether `model` is of a decoder family."""
    return isinstance(model, PreTrainedModel) and model.base_model.config.model_type in DECODERS


def holds_decoder(model: object) -> bool:
    """Whether `model` is one of vision and language whose language model is of a decoder family."""
    base: Any = getattr(model, "base_model", None)
    return (
        isinstance(model, PreTrainedModel)
        and base.config.model_type in MULTIMODAL
        and base.language_model.config.model_type in DECODERS
    )


def decoder_of(model: PreTrainedModel) -> Decoder:
    """The parts of `model`, one for which `is_decoder` or `holds_decoder` holds: of the latter its language model's.

    Raises
    ------
    InputError
        a sliding window, cross-attention, an unusual variant of attention or of rotary positions, an attention
        implementation other than eager and SDPA, or the model is already under a reduction.
    """
    base: Any = model.base_model
    if holds_decoder(model):
        base = base.language_model
    check_attention(base.config._attn_implementation)
    return language_decoder(base)


def language_decoder(base: Any) -> Decoder:
    """The parts of `base`, a decoder without a head, whatever attention it runs; raises as of `decoder_of`."""
    config: Any = base.config
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or ()) or (
        config.model_type == "mistral" and config.sliding_window is not None
    )
    if sliding:
        raise InputError("a sliding window cannot be combined with a cache method", field="model")
    if config.model_type == "gpt2":
        return _gpt2(base, config)
    return _rotary(base, config)


def _gpt2(base: Any, config: Any) -> Decoder:
    odd = [
        name
        for name in ("add_cross_attention", "reorder_and_upcast_attn", "scale_attn_by_inverse_layer_idx")
        if getattr(config, name)
    ]
    if odd:
        raise InputError("unsupported variant of GPT-2", field=f"model.config.{odd[0]}", value=True, allowed="False")
    shape = ModelShape(
        name=Path(config._name_or_path).name or config.model_type,
        family=config.model_type,
        layers=config.n_layer,
        heads=config.n_head,
        kv_heads=config.n_head,
        head_dim=config.n_embd // config.n_head,
        width=config.n_embd,
        ffn_width=config.n_inner or 4 * config.n_embd,
    )
    return Decoder(base, shape, tuple(block.attn for block in base.h), None, tuple(base.h))


def _rotary(base: Any, config: Any) -> Decoder:
    kind = base.rotary_emb.rope_type
    if kind not in STATIC_ROPE:
        raise InputError("unsupported rotary positions", field="model", value=kind, allowed=", ".join(STATIC_ROPE))
    attentions = tuple(layer.self_attn for layer in base.layers)
    shape = ModelShape(
        name=Path(config._name_or_path).name or config.model_type,
        family=config.model_type,
        layers=len(attentions),
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=attentions[0].head_dim,
        width=config.hidden_size,
        ffn_width=config.intermediate_size,
        gated_ffn=True,
    )
    rotary = Rotary(base.rotary_emb.inv_freq.detach(), float(base.rotary_emb.attention_scaling))
    return Decoder(base, shape, attentions, rotary, tuple(base.layers))
