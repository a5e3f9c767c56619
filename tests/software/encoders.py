"""Tiny random-weight encoders of every supported family, and ragged batches for them."""

from __future__ import annotations

import torch
from transformers import (
    AutoModel,
    BertConfig,
    CamembertConfig,
    ElectraConfig,
    PreTrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    XLMRobertaConfig,
)

CONFIGS: dict[str, type[PreTrainedConfig]] = {
    "bert": BertConfig,
    "camembert": CamembertConfig,
    "electra": ElectraConfig,
    "roberta": RobertaConfig,
    "xlm-roberta": XLMRobertaConfig,
}

torch.set_num_threads(1)  # on models this small, threads cost more than they give

PAD = 1
VOCABULARY = 100


def tiny_config(family: str = "bert", **changes: object) -> PreTrainedConfig:
    """Four layers, four heads of eight, weights large enough for peaked attention."""
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "embedding_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 330,
        "pad_token_id": PAD,
        "initializer_range": 0.3,
    }
    return CONFIGS[family](**(sizes | changes))


def tiny_encoder(family: str = "bert", attention: str = "sdpa", **changes: object) -> PreTrainedModel:
    """The model of `tiny_config` with weights of one seed, ready to run."""
    torch.manual_seed(0)
    return AutoModel.from_config(tiny_config(family, **changes), attn_implementation=attention).eval()


def ragged_batch(lengths: tuple[int, ...], padded: int | None = None, seed: int = 0) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` of random tokens, padded on the right."""
    random = torch.Generator().manual_seed(seed)
    width = max(lengths) if padded is None else padded
    tokens = torch.randint(2, VOCABULARY, (len(lengths), width), generator=random)
    mask = torch.arange(width) < torch.tensor(lengths).unsqueeze(1)
    return {"input_ids": tokens.masked_fill(~mask, PAD), "attention_mask": mask.long()}


def alone(batch: dict[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    """One sequence of `batch` without its padding."""
    live = batch["attention_mask"][row].bool()
    return {name: tensor[row : row + 1, live] for name, tensor in batch.items()}


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Norm of the difference over the norm of `wanted`."""
    return float((got - wanted).norm() / wanted.norm())
