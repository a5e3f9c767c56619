"""`TextEncoder`: MiniLM, or the encoder in a local directory, compared by the embeddings of paragraphs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from topsieve.corpus import evenly_spaced, python_reference
from topsieve.fidelity import FidelityTest
from topsieve.lowering import lower
from topsieve.models import reduce
from topsieve.pretrained import MINILM, MINILM_SHA256, Pretrained, load_pretrained
from topsieve.reduction.roles import BitPlan, Method
from topsieve.results import json_text
from topsieve.subjects.subject import Inputs, Metric, Observation
from topsieve.subjects.survival import survival, token_counts

_HASHED_BYTES = 1 << 20


class TextEncoder:
    """Sentence embeddings of a BERT-family model: see `topsieve.fidelity`.

    Parameters
    ----------
    name : see `topsieve.pretrained.load_pretrained`.
    inputs : without a corpus, paragraphs of the Python reference; cycles are measured on evenly spaced ones.
    """

    def __init__(self, name: str, inputs: Inputs) -> None:
        self._path = name
        self._name = Path(name).name
        self._inputs = inputs
        self._corpus = python_reference(inputs.paragraphs) if inputs.corpus is None else inputs.corpus

    def facts(self) -> dict[str, Any]:
        paragraphs = self._corpus.paragraphs
        return {
            "corpus": self._corpus.name,
            "corpus_digest": hashlib.sha256(json_text(paragraphs).encode()).hexdigest()[:16],
            "model": self._name,
            "model_digest": model_digest(self._path),
            "paragraphs": len(paragraphs),
            "seed": self._inputs.seed,
            "sequences": min(self._inputs.sequences, len(paragraphs)),
        }

    def load(self) -> None:
        self._pretrained: Pretrained = load_pretrained(self._path)
        texts = evenly_spaced(self._corpus.paragraphs, self._inputs.sequences)
        self._rows = self._pretrained.tokens(texts, source=self._corpus.name)
        self._fidelity = FidelityTest(self._pretrained, self._corpus)

    @property
    def longest(self) -> int:
        return max(map(len, self._rows))

    @property
    def metrics(self) -> Mapping[str, Metric]:
        neighbours = self._fidelity.neighbours
        return {
            "cosine": Metric("cosine", "cosine to the full model's embedding"),
            "recall": Metric(f"recall@{neighbours}", f"share of the full model's {neighbours} nearest paragraphs"),
        }

    def observe(self, method: Method, bits: BitPlan) -> Observation:
        with (
            torch.inference_mode(),
            reduce(self._pretrained.model, method, operands=True, seed=self._inputs.seed) as reduced,
        ):
            self._pretrained.model(**self._pretrained.batch(self._rows))
            record = reduced.record
        # A model's own idea of its name may be a folder on this machine.
        trace = dataclasses.replace(lower(record, operands=True, bits=bits), model=self._name)
        words = self._pretrained.tokenizer.convert_ids_to_tokens(self._rows[0])
        return Observation(trace, token_counts(record), tuple(words), tuple(survival(record, sequence=0)), {})

    def quality(self, method: Method) -> dict[str, float | int]:
        measured = dataclasses.asdict(self._fidelity.measure(method, seed=self._inputs.seed))
        return {name: value for name, value in measured.items() if name != "method"}


def model_digest(model: str) -> str:
    """Identifies the weights, configuration and tokenizer of `model` without reading large files whole.

    Raises
    ------
    InputError
        there is no such model directory.
    """
    if model == MINILM:
        return MINILM_SHA256[:16]
    directory = Path(model)
    if not directory.is_dir():
        load_pretrained(model)  # says what is wrong
    content = hashlib.sha256()
    for path in _files(directory):
        size = path.stat().st_size
        content.update(f"{path.relative_to(directory).as_posix()} {size}\n".encode())
        with path.open("rb") as stream:
            content.update(stream.read(_HASHED_BYTES))
            stream.seek(max(size - _HASHED_BYTES, 0))
            content.update(stream.read(_HASHED_BYTES))
    return content.hexdigest()[:16]


def _files(directory: Path) -> Sequence[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())
