"""`DigitsVit`: handwritten digits, compared by how many are recognised."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from topsieve.lowering import lower
from topsieve.models import reduce
from topsieve.pretrained import quiet_loading
from topsieve.reduction.roles import BitPlan, Method
from topsieve.subjects.checkpoint import digest, refuse_corpus
from topsieve.subjects.digits_vit.digits import SIDE, load_digits
from topsieve.subjects.digits_vit.train import CHECKPOINT
from topsieve.subjects.subject import Inputs, Metric, Observation
from topsieve.subjects.survival import survival, token_counts

TOKENS = SIDE * SIDE + 1


def load_model() -> Any:
    """The trained model, in single precision, ready to run."""
    from transformers import ViTForImageClassification

    with quiet_loading():
        return ViTForImageClassification.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()


class DigitsVit:
    """The trained ViT on the test digits: accuracy, and agreement with itself unreduced.

    Parameters
    ----------
    name : of the subject.
    inputs : quality is measured on all test images; `sequences` of them run on the accelerator.

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
            "corpus": "test digits",
            "model": self._name,
            "model_digest": digest(CHECKPOINT),
            "paragraphs": len(load_digits("test").labels),
            "seed": self._inputs.seed,
            "sequences": min(self._inputs.sequences, len(load_digits("test").labels)),
        }

    def load(self) -> None:
        self._model = load_model()
        test = load_digits("test")
        self._pixels, self._labels = test.images.unsqueeze(1), test.labels
        with torch.inference_mode():
            self._whole: Tensor = self._model(pixel_values=self._pixels).logits.argmax(-1)

    @property
    def longest(self) -> int:
        return TOKENS

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return {
            "accuracy": Metric("accuracy", "share of the test digits recognised"),
            "agreement": Metric("agreement", "share of the digits read as the full model reads them"),
        }

    def observe(self, method: Method, bits: BitPlan) -> Observation:
        pixels = self._pixels[: self._inputs.sequences]
        with torch.inference_mode(), reduce(self._model, method, operands=True, seed=self._inputs.seed) as reduced:
            self._model(pixel_values=pixels)
            record = reduced.record
        trace = dataclasses.replace(lower(record, operands=True, bits=bits), model=self._name)
        words = ("CLS", *(f"{row},{column}" for row in range(SIDE) for column in range(SIDE)))
        return Observation(trace, token_counts(record), words, tuple(survival(record, sequence=0)), {})

    def quality(self, method: Method) -> dict[str, float | int]:
        with torch.inference_mode(), reduce(self._model, method, seed=self._inputs.seed):
            guesses = self._model(pixel_values=self._pixels).logits.argmax(-1)
        return {
            "accuracy": float((guesses == self._labels).double().mean()),
            "agreement": float((guesses == self._whole).double().mean()),
            "images": len(self._labels),
        }
