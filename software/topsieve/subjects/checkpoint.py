"""Checkpoints that come with the package, and what identifies them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from topsieve.subjects.subject import Inputs
from topsieve_sim.errors import InputError


def digest(folder: Path) -> str:
    """The first 16 digits of the SHA-256 of configuration and weights."""
    content = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        content.update((folder / name).read_bytes())
    return content.hexdigest()[:16]


def refuse_corpus(name: str, inputs: Inputs) -> None:
    """Raise `InputError` where a text corpus is asked of a model of images."""
    if inputs.corpus is not None:
        raise InputError(f"{name} takes images of its own, no text", field="corpus", value=inputs.corpus.name)
