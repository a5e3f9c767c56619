"""Finds subjects by name: the models that `topsieve compare --model` knows, and local Hugging Face directories.

Nothing here loads torch before a subject is made.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from topsieve_sim.errors import InputError

if TYPE_CHECKING:
    from topsieve.subjects.subject import Inputs, Subject

# Name: `module:Class`. A model is one file (or folder) of this package and one line here.
BUILT_IN = {
    "minilm": "topsieve.subjects.text_encoder:TextEncoder",
    "byte-gpt": "topsieve.subjects.byte_gpt.subject:ByteGpt",
    "digits-vit": "topsieve.subjects.digits_vit.subject:DigitsVit",
    "mosaic-llava": "topsieve.subjects.mosaic_llava.subject:MosaicLlava",
}

# A directory holds a text encoder.
DIRECTORY = "topsieve.subjects.text_encoder:TextEncoder"


def subject_names() -> tuple[str, ...]:
    """Names of the models that come with Topsieve or are packages it knows."""
    return tuple(BUILT_IN)


def open_subject(name: str, inputs: Inputs) -> Subject:
    """The subject called `name`, or the text encoder in the directory of that name, not loaded yet.

    Raises
    ------
    InputError
        there is no such name or directory.
    """
    if name not in BUILT_IN and not Path(name).is_dir():
        raise InputError(
            "no such model directory",
            field="model",
            value=name,
            allowed=f"{', '.join(BUILT_IN)}, or a directory made with save_pretrained",
        )
    module, _, class_name = BUILT_IN.get(name, DIRECTORY).partition(":")
    subject: Subject = getattr(importlib.import_module(module), class_name)(name, inputs)
    return subject
