"""Scorers for prompt methods that take milliseconds: MiniLM's own tokenizer in front of tiny encoders, and `byte-gpt`."""

from __future__ import annotations

from functools import cache

import torch
from transformers import BertConfig, BertModel

from topsieve.pretrained import Pretrained, load_pretrained
from topsieve.prompt.attribution import Attributor
from topsieve.prompt.classifier import KeepClassifier
from topsieve.prompt.information import InformationModel, byte_gpt_information
from topsieve.prompt.judge import EmbeddingJudge

TEXT = (
    "The with statement wraps the execution of a block. It uses methods defined by a context manager, such as "
    "__enter__() and __exit__(). A manager may suppress 2 exceptions; it's rarely wise. Files are closed. "
    "Files are closed again when the block ends, whatever happened inside."
)


@cache
def tiny() -> Pretrained:
    """Two layers of random weights behind MiniLM's tokenizer."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    model = BertModel(config).eval()
    return Pretrained("tiny", model, load_pretrained().tokenizer, 64)


@cache
def classifier() -> KeepClassifier:
    torch.manual_seed(1)
    return KeepClassifier(tiny(), torch.nn.Linear(16, 2).requires_grad_(False))


@cache
def attributor(how: str) -> Attributor:
    return Attributor(tiny(), how)  # type: ignore[arg-type]


@cache
def judge() -> EmbeddingJudge:
    return EmbeddingJudge(tiny(), 8.0, -4.0)


@cache
def informed() -> InformationModel:
    return byte_gpt_information()


def scorer_of(name: str) -> object:
    """The scorer that fits the method of this text."""
    method = name.partition(":")[0]
    if method == "frugalprompt":
        return attributor("globenc" if "globenc" in name else "decompx")
    return {"llmlingua-2": classifier, "exit": judge, "selective-context": informed}[method]()
