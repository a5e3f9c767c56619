"""Tiny random-weight image encoders and a LLaVA, and batches for them."""

from __future__ import annotations

import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedModel,
    ViTConfig,
    ViTModel,
)

torch.set_num_threads(1)  # on models this small, threads cost more than they give

# Methods made for images; their decisions may do more arithmetic in software than on the hardware.
VISION_METHODS = (
    "ats",
    "a-vit",
    "fastv",
    "visionzip",
    "divprune",
    "fastervlm",
    "dynamicvit",
    "prumerge",
    "pyramiddrop",
    "dart",
    "sparsevlm",
    "pact",
    "dycoke",
    "hiprune",
    "flowcut",
    "todre",
    "globalcom2",
    "zoo-prune",
    "turbo",
    "folder",
    "tokencorr",
)

SIDE = 16
PATCH = 4
PATCHES = (SIDE // PATCH) ** 2
IMAGE = 1
PAD = 0
VOCABULARY = 40

VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": SIDE,
    "patch_size": PATCH,
    "num_channels": 1,
}


def scaled(model: PreTrainedModel, factor: float = 4.0) -> PreTrainedModel:
    """Weights large enough for peaked attention."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and ("q_proj" in name or "k_proj" in name):
                weight *= factor
    return model.eval()


def tiny_vit(attention: str = "sdpa", **changes: object) -> PreTrainedModel:
    """16 patches and CLS, four layers."""
    torch.manual_seed(0)
    config = ViTConfig(**(VISION | {"initializer_range": 0.3} | changes), attn_implementation=attention)
    return ViTModel(config, add_pooling_layer=False).eval()


def tiny_clip(attention: str = "sdpa") -> PreTrainedModel:
    """16 patches and CLS, four layers."""
    torch.manual_seed(0)
    return scaled(CLIPVisionModel(CLIPVisionConfig(**VISION, attn_implementation=attention)))


def tiny_llava(attention: str = "sdpa", strategy: str = "default", **text: object) -> PreTrainedModel:
    """The tower of `tiny_clip`, and a Llama of five layers with two key heads for four query heads."""
    torch.manual_seed(0)
    language = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 128,
        "initializer_range": 0.3,
        "pad_token_id": PAD,
    }
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=LlamaConfig(**(language | text)),
        image_token_id=IMAGE,
        vision_feature_layer=-2,
        vision_feature_select_strategy=strategy,
        attn_implementation=attention,
    )
    return scaled(LlavaForConditionalGeneration(config))


def images(count: int, seed: int = 0) -> torch.Tensor:
    """float [count, 1, 16, 16]."""
    return torch.randn(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def questions(texts: tuple[int, ...] = (5, 3, 7), seed: int = 0, tokens: int = PATCHES) -> dict[str, torch.Tensor]:
    """One image a row, three tokens before it and `texts` after it; padded on the right."""
    random = torch.Generator().manual_seed(seed)
    width = 3 + tokens + max(texts)
    ids = torch.randint(2, VOCABULARY, (len(texts), width), generator=random)
    ids[:, 3 : 3 + tokens] = IMAGE
    mask = torch.arange(width) < torch.tensor(texts).unsqueeze(1) + 3 + tokens
    return {
        "input_ids": ids.masked_fill(~mask, PAD),
        "attention_mask": mask.long(),
        "pixel_values": images(len(texts), seed),
    }


def single(batch: dict[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    """One sequence of `batch` without its padding."""
    live = batch["attention_mask"][row].bool()
    return {
        "input_ids": batch["input_ids"][row : row + 1, live],
        "attention_mask": batch["attention_mask"][row : row + 1, live],
        "pixel_values": batch["pixel_values"][row : row + 1],
    }
