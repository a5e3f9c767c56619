"""A small real model on disk, with a tokenizer, that the commands run on in a second."""

from __future__ import annotations

import os
import string
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "it",
    "for",
    "as",
    "with",
    "on",
    "by",
    "this",
    "be",
    "are",
    "from",
    "or",
    "an",
    "at",
    "which",
    "not",
    "have",
    "has",
    "was",
    "one",
    "all",
]

PARAGRAPHS = (
    "The name of the object is not the same as the object, and that is all that this is for.",
    "It is one of the two that are in the list from which all of this was made, as it has to be.",
    "This is not to be on the way by which it was one of all, or at the end with an object.",
    "For that which is to be in it, the one at the end of the list has not to be as the others are.",
    "All of this was for the one that is by the way.",
    "From the end of the list to the name of the object, all are one.",
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """Folder of a BERT encoder with random weights: 4 layers, 4 heads of 8, at most 64 tokens."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    letters = string.ascii_lowercase + string.digits + string.punctuation
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{letter}" for letter in letters),
        *WORDS,
    ]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(vocabulary)}, model_max_length=64)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def text_file(tmp_path_factory) -> Path:
    """Six short paragraphs that the small model takes."""
    file = tmp_path_factory.mktemp("texts") / "six.txt"
    file.write_text("\n\n".join(PARAGRAPHS) + "\n")
    return file
