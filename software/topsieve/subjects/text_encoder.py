"""`TextEncoder`: MiniLM, or the encoder in a local directory, compared by the embeddings of paragraphs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from topsieve.corpus import evenly_spaced, python_reference
from topsieve.fidelity import FidelityTest, asked
from topsieve.lowering import lower
from topsieve.methods import build, spell
from topsieve.models import reduce
from topsieve.pretrained import MINILM, MINILM_SHA256, Pretrained, load_pretrained
from topsieve.prompt import charged, compress
from topsieve.prompt.roles import PromptMethod
from topsieve.record import Record
from topsieve.reduction.roles import BitPlan, Method
from topsieve.results import json_text
from topsieve.subjects.subject import Inputs, Metric, Observation
from topsieve.subjects.survival import prompt_facts, survival, token_counts, unit_survival, unit_words
from topsieve_sim.trace import Trace

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
        self._texts = evenly_spaced(self._corpus.paragraphs, self._inputs.sequences)
        self._rows = self._pretrained.tokens(self._texts, source=self._corpus.name)
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
        if isinstance(method, PromptMethod):
            return self._observe_prompts(method, bits)
        record, trace = self._run(method, self._rows, bits)
        words = self._pretrained.tokenizer.convert_ids_to_tokens(self._rows[0])
        return Observation(trace, token_counts(record), tuple(words), tuple(survival(record, sequence=0)), {})

    def _observe_prompts(self, method: PromptMethod, bits: BitPlan) -> Observation:
        scorer = method.scorer()
        short = [compress(method, asked(text), scorer=scorer, operands=True, bits=bits) for text in self._texts]
        rows = self._pretrained.tokens([prompt.text for prompt in short], source=self._corpus.name)
        record, trace = self._run(build("dense"), rows, bits)
        whole = charged(trace, short, spell(method))
        more = {"prompt": prompt_facts(short, whole.flops - trace.flops, [len(row) for row in rows])}
        survived = unit_survival(short[0], record.shape.layers)
        return Observation(whole, token_counts(record), unit_words(short[0]), survived, more)

    def _run(self, method: Method, rows: Sequence[Sequence[int]], bits: BitPlan) -> tuple[Record, Trace]:
        """What happened to the sequences `rows`, and its trace with operands."""
        with (
            torch.inference_mode(),
            reduce(self._pretrained.model, method, operands=True, seed=self._inputs.seed) as reduced,
        ):
            self._pretrained.model(**self._pretrained.batch(rows))
            record = reduced.record
            assert isinstance(record, Record)
        # A model's own idea of its name may be a folder on this machine.
        return record, dataclasses.replace(lower(record, operands=True, bits=bits), model=self._name)

    def quality(self, method: Method) -> dict[str, float | int]:
        if isinstance(method, PromptMethod):
            fidelity = self._fidelity.measure_prompts(method)
        else:
            fidelity = self._fidelity.measure(method, seed=self._inputs.seed)
        measured = dataclasses.asdict(fidelity)
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
