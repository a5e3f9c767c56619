"""Tiny random decoders of each family, in float64, and what the tests of cache methods ask of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

torch.set_num_threads(1)

FAMILIES = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
VOCABULARY = 61

# Small windows and pages, so that something happens within a short prompt; every path through the roles.
VARIANTS = (
    "random",
    "spatten",
    "spatten:head_keep=0.5,value_keep=0.6,quantisation=8+4",
    "spatten:schedule=stepwise,protect_first=1",
    "h2o",
    "h2o:heavy=3,recent=2,group=max",
    "streaming-llm:sinks=2",
    "streaming-llm:sinks=1,positions=original",
    "tova",
    "snapkv:window=3,kernel=3",
    "snapkv:window=3,pool=maximum,group=max",
    "knorm:skip_layers=0",
    "knorm:variant=official",
    "scissorhands:history=6,recent=2",
    "pyramidkv:window=2,kernel=3,beta=4",
    "adakv:window=2,kernel=3",
    "quest:page_size=2,skip_layers=0",
    "keydiff:decode=true",
    "expected-attention:sinks=2,future=8",
    "think:window=3",
    "kvmerger:threshold=0.2",
    "d2o:whole_first=0,whole_last=0,sinks=1",
    "cam:targets=3,sinks=1",
    "cam:targets=3,sinks=1,expected=true",
    "ems:window=3,tau=0.1",
    "ems:window=3,tau=0.1,merge_norm=mean,before_rotation=true,head_budget=adaptive,pool=3",
    "skipdecode:max_layers=3,min_layers=1,new_tokens=4",
    "skipdecode:max_layers=2,min_layers=2,prompt_budget=max",
)


def tiny_decoder(family: str, *, layers: int = 3, attention: str = "sdpa", seed: int = 0) -> Any:
    """Random weights, large enough that attention is not flat; two query heads a key-value head but in GPT-2."""
    torch.manual_seed(seed)
    if family == "gpt2":
        model: Any = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_positions=96,
                n_embd=32,
                n_layer=layers,
                n_head=4,
                initializer_range=0.4,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
    else:
        sizes = {
            "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": layers,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 96, "initializer_range": 0.4,
            "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
        }  # fmt: skip
        model = {
            "llama": lambda: LlamaForCausalLM(LlamaConfig(**sizes)),
            "mistral": lambda: MistralForCausalLM(MistralConfig(**sizes, sliding_window=None)),
            "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**sizes)),
            "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**sizes, head_dim=8)),
        }[family]()
        if family == "qwen3":
            # Keys that are normalised to one length would tie in norm-based methods.
            for layer in model.model.layers:
                layer.self_attn.k_norm.weight.data.uniform_(0.5, 1.5)
    model = model.to(torch.float64).eval()
    model.set_attn_implementation(attention)
    return model


def prompt(lengths: list[int], seed: int = 0) -> dict[str, Tensor]:
    """Random tokens, padded on the left."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    ids = torch.randint(1, VOCABULARY, (len(lengths), width), generator=generator)
    mask = torch.stack([torch.arange(width) >= width - length for length in lengths]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def generate(model: Any, batch: dict[str, Tensor], tokens: int) -> Tensor:
    """float64 [B, T, V]: the logits of a greedy generation."""
    out = model.generate(
        **batch,
        max_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    return torch.stack(out.scores, dim=1)
