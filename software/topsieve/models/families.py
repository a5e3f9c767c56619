"""Which Hugging Face models a reduction can be applied to, and where their parts are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from topsieve.reduction.roles import ModelShape, Tower
from topsieve_sim.errors import InputError

# Post-LN encoders whose layer is `attention` (with `self` and `output`), `intermediate`, `output`: the hidden states between
# attention and FFN leave the `attention` module, so a hook can reduce them.
POST_LN_ENCODERS = ("bert", "camembert", "electra", "roberta", "xlm-roberta")
# Pre-LN encoders whose layer is a list of attention and FFN, each with its own LayerNorm and residual: a hook on the first
# reduces between them. Their positions are a bias of the scores, made in the first layer for all.
RELATIVE_ENCODERS = ("t5",)
TEXT_ENCODERS = (*POST_LN_ENCODERS, *RELATIVE_ENCODERS)
# Pre-LN encoders of images: the residual is added in the layer's own `forward`, see `topsieve.models.tower`.
VISION_ENCODERS = ("clip", "clip_vision_model", "vit")
# Vision tower, projector and language model, by the class of the whole.
MULTIMODAL = ("llava",)
LANGUAGE_TOWERS = ("llama", "mistral", "qwen2", "qwen3")
SUPPORTED = (*TEXT_ENCODERS, *VISION_ENCODERS, *MULTIMODAL)

ATTENTION_IMPLEMENTATIONS = ("eager", "sdpa")

# Reductions run under an attention implementation of this prefix and a number.
REDUCED_PREFIX = "topsieve_"


@dataclass(frozen=True)
class EncoderLayer:
    """Modules of one layer. `self_attention` calls the attention function; `query` and `key` are its projections.

    Layers of text encoders have an `attention` that ends before the FFN, residual included. Those of images have the modules
    of a pre-LN layer.
    """

    layer: nn.Module
    self_attention: nn.Module
    query: nn.Module
    key: nn.Module
    attention: nn.Module | None = None
    norm_attention: nn.Module | None = None
    norm_ffn: nn.Module | None = None
    ffn: nn.Module | None = None


@dataclass(frozen=True)
class Encoder:
    """One stack of layers: the module that holds it, its shape and its layers.

    Parameters
    ----------
    base : the module whose forward pass runs the layers.
    layers : all of them, `shape.tail_layers` at the end included.
    final_norm : what the hidden states go through after the last layer; None for nothing.
    rotary : makes position embeddings from hidden states and position ids; None for models without rotation.
    """

    base: PreTrainedModel
    shape: ModelShape
    layers: tuple[EncoderLayer, ...]
    final_norm: nn.Module | None = None
    rotary: nn.Module | None = None

    @property
    def causal(self) -> bool:
        """Whether no token sees the ones after it."""
        return self.shape.tower is Tower.LANGUAGE


@dataclass(frozen=True)
class Multimodal:
    """A model of vision and language: the module that joins them and its three parts."""

    base: PreTrainedModel
    vision: Encoder
    projector: nn.Module
    language: Encoder


def parts_of(model: object) -> Encoder | Multimodal:
    """The parts of `model`.

    Raises
    ------
    InputError
        `model` is not a Hugging Face model of a supported family, is a decoder, runs an attention implementation other
        than eager and SDPA, or is already under a reduction.
    """
    families = ", ".join(SUPPORTED)
    if not isinstance(model, PreTrainedModel):
        raise InputError(
            "not a Hugging Face model",
            field="model",
            value=type(model).__name__,
            allowed=f"models of the families {families}",
        )
    base: Any = model.base_model
    config: Any = base.config
    if config.model_type in MULTIMODAL:
        return _multimodal(base)
    if config.model_type in VISION_ENCODERS:
        return _vision_encoder(_vision_base(base))
    if config.model_type in RELATIVE_ENCODERS:
        return _relative_encoder(base)
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
    layers = tuple(
        EncoderLayer(
            layer,
            layer.attention.self,
            layer.attention.self.query,
            layer.attention.self.key,
            attention=layer.attention,
        )
        for layer in base.encoder.layer
    )
    return Encoder(base, _shape(config, len(layers)), layers)


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


def _shape(config: Any, layers: int, **more: Any) -> ModelShape:
    return ModelShape(
        name=Path(config._name_or_path).name or config.model_type,  # the name, not the folder on this machine
        family=config.model_type,
        layers=layers,
        heads=config.num_attention_heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        width=config.hidden_size,
        ffn_width=config.intermediate_size,
        **more,
    )


def _relative_encoder(base: Any) -> Encoder:
    """The encoder of a T5 that has no decoder."""
    if hasattr(base, "decoder"):
        raise InputError(
            "a model with a decoder cannot be reduced: its cross-attention would no longer fit",
            field="model",
            value=type(base).__name__,
            allowed="T5EncoderModel",
        )
    stack = base.encoder
    config = stack.config
    check_attention(config._attn_implementation)
    layers = tuple(
        EncoderLayer(
            block,
            block.layer[0].SelfAttention,
            block.layer[0].SelfAttention.q,
            block.layer[0].SelfAttention.k,
            attention=block.layer[0],
            norm_attention=block.layer[0].layer_norm,
        )
        for block in stack.block
    )
    shape = ModelShape(
        name=Path(config._name_or_path).name or config.model_type,
        family=config.model_type,
        layers=len(layers),
        heads=config.num_heads,
        kv_heads=config.num_heads,
        head_dim=config.d_kv,
        width=config.d_model,
        ffn_width=config.d_ff,
        gated_ffn=config.is_gated_act,
        class_token=False,
    )
    return Encoder(stack, shape, layers, stack.final_layer_norm)


def _vision_base(base: Any) -> Any:
    """The module that runs the image encoder: a CLIP model's is one of two."""
    return base.vision_model if hasattr(base, "vision_model") else base


def _vision_encoder(
    base: Any, *, tail_layers: int = 0, tower: Tower | None = None, class_token: bool = True
) -> Encoder:
    check_attention(base.config._attn_implementation)
    if base.config.model_type == "vit":
        layers = tuple(
            EncoderLayer(
                layer,
                layer.attention,
                layer.attention.q_proj,
                layer.attention.k_proj,
                norm_attention=layer.layernorm_before,
                norm_ffn=layer.layernorm_after,
                ffn=layer.mlp,
            )
            for layer in base.layers
        )
        final_norm = base.layernorm
    else:
        layers = tuple(
            EncoderLayer(
                layer,
                layer.self_attn,
                layer.self_attn.q_proj,
                layer.self_attn.k_proj,
                norm_attention=layer.layer_norm1,
                norm_ffn=layer.layer_norm2,
                ffn=layer.mlp,
            )
            for layer in base.encoder.layers
        )
        final_norm = base.post_layernorm
    shape = _shape(
        base.config, len(layers) - tail_layers, tower=tower, tail_layers=tail_layers, class_token=class_token
    )
    return Encoder(base, shape, layers, final_norm)


def _multimodal(base: Any) -> Multimodal:
    config = base.config
    vision, language = _vision_base(base.vision_tower), base.language_model
    if vision.config.model_type not in VISION_ENCODERS or language.config.model_type not in LANGUAGE_TOWERS:
        raise InputError(
            "unsupported towers",
            field="model",
            value=f"{vision.config.model_type} and {language.config.model_type}",
            allowed=f"one of {', '.join(VISION_ENCODERS)} and one of {', '.join(LANGUAGE_TOWERS)}",
        )
    count = vision.config.num_hidden_layers
    chosen = config.vision_feature_layer
    used = (chosen if chosen >= 0 else count + 1 + chosen) if isinstance(chosen, int) else 0
    if not 0 < used <= count:
        raise InputError(
            "unsupported feature layer", field="vision_feature_layer", value=chosen, allowed="one layer of the tower"
        )
    check_attention(language.config._attn_implementation)
    layers = tuple(
        EncoderLayer(
            layer,
            layer.self_attn,
            layer.self_attn.q_proj,
            layer.self_attn.k_proj,
            norm_attention=layer.input_layernorm,
            norm_ffn=layer.post_attention_layernorm,
            ffn=layer.mlp,
        )
        for layer in language.layers
    )
    shape = _shape(language.config, len(layers), gated_ffn=True, tower=Tower.LANGUAGE, class_token=False)
    return Multimodal(
        base,
        _vision_encoder(
            vision,
            tail_layers=count - used,
            tower=Tower.VISION,
            class_token=config.vision_feature_select_strategy == "full",
        ),
        base.multi_modal_projector,
        Encoder(language, shape, layers, language.norm, language.rotary_emb),
    )
