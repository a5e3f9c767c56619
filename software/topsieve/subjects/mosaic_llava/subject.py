"""`MosaicLlava`: questions about mosaics of digits, compared by how many are answered correctly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from topsieve.cache.session import acts_on_cache_only
from topsieve.lowering import lower
from topsieve.models import reduce
from topsieve.pretrained import quiet_loading
from topsieve.record import Record
from topsieve.reduction.roles import BitPlan, Method
from topsieve.subjects.checkpoint import digest, refuse_corpus
from topsieve.subjects.digits_vit.digits import load_digits
from topsieve.subjects.mosaic_llava.mosaic import (
    GRID,
    IMAGE_TOKENS,
    PATCH,
    PIXELS,
    Question,
    how_many,
    make_mosaics,
    prompt_ids,
    which_digit,
)
from topsieve.subjects.mosaic_llava.train import CHECKPOINT
from topsieve.subjects.subject import Inputs, Metric, Observation
from topsieve.subjects.survival import ALONE, GONE, survival, token_counts
from topsieve_sim.errors import InputError

# Begin, the image, a question of three tokens.
TOKENS = 1 + IMAGE_TOKENS + 3


def load_model() -> Any:
    """The trained model, in single precision, ready to run."""
    from transformers import LlavaForConditionalGeneration

    with quiet_loading():
        return LlavaForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()


class MosaicLlava:
    """The trained LLaVA on mosaics of the test digits: accuracy of its answers, and agreement with itself unreduced.

    Parameters
    ----------
    name : of the subject.
    inputs : `paragraphs` mosaics are drawn with `seed`, each with a question for one cell and one that counts;
        `sequences` of them run on the accelerator, with the question for a cell.

    Raises
    ------
    InputError
        a text corpus was given.
    """

    def __init__(self, name: str, inputs: Inputs) -> None:
        refuse_corpus(name, inputs)
        self._name = name
        self._inputs = inputs

    def facts(self) -> dict[str, Any]:
        return {
            "corpus": "mosaics of test digits",
            "model": self._name,
            "model_digest": digest(CHECKPOINT),
            "paragraphs": self._inputs.paragraphs,
            "seed": self._inputs.seed,
            "sequences": min(self._inputs.sequences, self._inputs.paragraphs),
        }

    def load(self) -> None:
        self._model = load_model()
        count, random = self._inputs.paragraphs, torch.Generator().manual_seed(self._inputs.seed)
        mosaics = make_mosaics(load_digits("test"), count, random)
        places = torch.randint(GRID, (count, 2), generator=random).tolist()
        digits = torch.randint(10, (count,), generator=random).tolist()
        self._pixels = mosaics.pixels
        self._cell = [which_digit(cells, *place) for cells, place in zip(mosaics.cells, places, strict=True)]
        self._count = [how_many(cells, digit) for cells, digit in zip(mosaics.cells, digits, strict=True)]
        self._whole = [self._answers(questions) for questions in (self._cell, self._count)]

    @property
    def longest(self) -> int:
        return TOKENS

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return {
            "cell": Metric("cell", "share of 'which digit is at row r, column c' answered correctly"),
            "count": Metric("count", "share of 'how many of digit d' answered correctly"),
            "agreement": Metric("agreement", "share of the answers that are the full model's"),
        }

    def observe(self, method: Method, bits: BitPlan) -> Observation:
        chosen = self._cell[: self._inputs.sequences]
        with torch.inference_mode(), self._under(method, operands=True) as reduced:
            self._answers(chosen)
            record = reduced.record
        trace = dataclasses.replace(lower(record, operands=True, bits=bits), model=self._name)
        side = PIXELS // PATCH
        image = [f"{row},{column}" for row in range(side) for column in range(side)]
        words = ("begin", *image, "digit", "at {},{}".format(*(chosen[0].cell or ())), "?")
        return Observation(trace, _counts(record), words, tuple(_survival(record)), {})

    def quality(self, method: Method) -> dict[str, float | int]:
        with torch.inference_mode(), self._under(method):
            answers = [self._answers(questions) for questions in (self._cell, self._count)]
        right = [_share(got, questions) for got, questions in zip(answers, (self._cell, self._count), strict=True)]
        same = torch.cat(answers) == torch.cat(self._whole)
        return {
            "cell": right[0],
            "count": right[1],
            "agreement": float(same.double().mean()),
            "questions": len(same),
        }

    def _under(self, method: Method, **options: bool) -> Any:
        """The model under `method`; its answers are one token, before which nobody reads a cache."""
        if acts_on_cache_only(method):
            raise InputError(f"{method.name} acts on the cache of decoders", field="model", value=self._name)
        return reduce(self._model, method, seed=self._inputs.seed, **options)

    def _answers(self, questions: Sequence[Question]) -> Tensor:
        """int64 [n]: the token the model answers each question with; all prompts have one length."""
        tokens = torch.stack([prompt_ids(question) for question in questions])
        with torch.inference_mode():
            logits = self._model(input_ids=tokens, pixel_values=self._pixels[: len(questions)], use_cache=False).logits
        return logits[:, -1].argmax(-1)


def _counts(record: Record) -> dict[str, Any]:
    """Tokens and heads of the tower's layers and then of the language model's."""
    assert record.vision is not None
    parts = [token_counts(part) for part in (record.vision.tower, record)]
    counts: dict[str, Any] = {"sequences": record.sequences}
    for name in ("attention", "ffn", "heads"):
        counts[name] = [count for part in parts for count in part[name]]
    return counts


def _survival(record: Record) -> list[str]:
    """One text a layer, tower first: what is left of each token of the first prompt; merged tokens count at their slot."""
    assert record.vision is not None
    layers = []
    for letters in survival(record.vision.tower, sequence=0):
        layers.append(ALONE + letters[1:] + ALONE * (TOKENS - 1 - IMAGE_TOKENS))
    for layer in record.layers:
        left = set(layer.positions[0].tolist())
        layers.append("".join(ALONE if token in left else GONE for token in range(TOKENS)))
    return layers


def _share(answers: Tensor, questions: Sequence[Question]) -> float:
    return float((answers == torch.tensor([question.answer for question in questions])).double().mean())
