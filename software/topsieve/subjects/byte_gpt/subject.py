"""`ByteGpt`: the byte decoder of this package, compared by perplexity and by recall."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import random
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from topsieve.lowering import lower
from topsieve.methods import build, spell
from topsieve.prompt import charged
from topsieve.prompt.roles import PromptMethod
from topsieve.reduction.roles import BitPlan, Method
from topsieve.subjects.byte_gpt import prompts, text
from topsieve.subjects.byte_gpt.model import CHECKPOINT, WEIGHTS, load_byte_gpt
from topsieve.subjects.decoding import Decoded, decode
from topsieve.subjects.subject import Inputs, Metric, Observation
from topsieve.subjects.survival import ALONE, GONE, SHARED, prompt_facts, unit_survival, unit_words
from topsieve_sim.errors import InputError

# Bytes of a prompt, bytes that are then scored one by one, bytes that run on the accelerator behind a prompt.
PROMPT, SCORED, DECODED = 256, 64, 16
NOTES = 4


class ByteGpt:
    """Text the model has never seen: the prompt is read and reduced, then the next bytes are scored as in decoding.

    Quality is measured on `inputs.paragraphs` windows of held-out topics (or of the user's text), and on as many recall
    questions: notes in a prompt, the question behind it (see `topsieve.subjects.byte_gpt.text`). Methods that shorten
    prompts act before all that, see `topsieve.subjects.byte_gpt.prompts`.
    """

    def __init__(self, name: str, inputs: Inputs) -> None:
        self._name = name
        self._inputs = inputs
        self._source = "held-out topics of the Python reference"
        self._content = text.reference(held_out=True)
        if inputs.corpus is not None:
            self._source = inputs.corpus.name
            self._content = b"\n\n".join(text.plain(paragraph) for paragraph in inputs.corpus.paragraphs)
        if len(self._content) <= PROMPT + SCORED:
            raise InputError(
                f"too short for {name}: {len(self._content)} bytes",
                source=self._source,
                allowed=f"over {PROMPT + SCORED}",
            )

    def facts(self) -> dict[str, Any]:
        weights = CHECKPOINT / WEIGHTS
        try:
            digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"cannot read: {error.strerror or error}", source=str(weights)) from error
        return {
            "corpus": self._source,
            "corpus_digest": hashlib.sha256(self._content).hexdigest()[:16],
            "model": self._name,
            "model_digest": digest[:16],
            "paragraphs": self._inputs.paragraphs,
            "seed": self._inputs.seed,
            "sequences": self._inputs.sequences,
        }

    def load(self) -> None:
        if self._inputs.paragraphs < 1:
            raise InputError("wrong value", field="paragraphs", value=self._inputs.paragraphs, allowed="at least 1")
        self._model = load_byte_gpt()
        draw = random.Random(self._inputs.seed)
        count = max(self._inputs.paragraphs, self._inputs.sequences)
        windows = [text.window(draw, self._content, PROMPT + SCORED) for _ in range(count)]
        questions = [text.recall_question(draw, self._content, PROMPT + 2, NOTES) for _ in range(count)]
        self._windows = _tensor(windows)
        self._questions = _tensor([question.context for question in questions])
        self._answers = torch.tensor([question.answer for question in questions])
        self._dense = self._measured(build("dense"))

    @property
    def longest(self) -> int:
        return PROMPT + DECODED

    @property
    def metrics(self) -> Mapping[str, Metric]:
        return {
            "perplexity_ratio": Metric("perplexity", "perplexity a byte, relative to the full model", lower=True),
            "recall_accuracy": Metric("recall", f"share of {self._inputs.paragraphs} recall questions answered"),
            "cache_share": Metric(
                "cache", "bytes the cache holds after the prompt, relative to the full model", lower=True
            ),
        }

    def observe(self, method: Method, bits: BitPlan) -> Observation:
        if isinstance(method, PromptMethod):
            return self._observe_prompts(method, bits)
        rows = self._windows[: self._inputs.sequences]
        given = rows[:, PROMPT : PROMPT + DECODED]
        ran = self._decode(method, rows[:, :PROMPT], given, operands=True)
        trace = dataclasses.replace(lower(ran.record, operands=True, bits=bits), model=self._name)
        last = ran.record.passes[-1]
        heads = ran.record.shape.kv_heads
        tokens = {
            "sequences": ran.record.sequences,
            "attention": [-int(-layer.slots.sum() // heads) for layer in last],
            "ffn": [int(layer.queries.sum()) for layer in last],
            "heads": [int(layer.heads.sum()) for layer in last],
        }
        words = tuple(_word(byte) for byte in rows[0, :PROMPT].tolist())
        held = ran.record.held_bytes
        more = {"cache": {"held_bytes_after_prompt": held[0], "held_bytes_at_end": held[-1], "passes": len(held)}}
        return Observation(trace, tokens, words, tuple(_letters(ran)), more)

    def quality(self, method: Method) -> dict[str, float | int]:
        measured = self._measured_prompts(method) if isinstance(method, PromptMethod) else self._measured(method)
        return {
            "perplexity_ratio": measured["perplexity"] / self._dense["perplexity"],
            "recall_accuracy": measured["recall_accuracy"],
            "cache_share": measured["held_bytes"] / self._dense["held_bytes"],
            "perplexity": measured["perplexity"],
        }

    def _measured(self, method: Method) -> dict[str, float]:
        count = self._inputs.paragraphs
        rows, questions = self._windows[:count], self._questions[:count]
        ran = self._decode(method, rows[:, :PROMPT], rows[:, PROMPT:-1])
        loss = torch.nn.functional.cross_entropy(ran.logits.flatten(0, 1), rows[:, PROMPT:].flatten())
        asked = self._decode(method, questions[:, :PROMPT], questions[:, PROMPT:])
        right = asked.logits[:, -1].argmax(-1) == self._answers[:count]
        return {
            "perplexity": float(loss.double().exp()),
            "recall_accuracy": float(right.double().mean()),
            "held_bytes": float(ran.record.held_bytes[0]),
        }

    def _observe_prompts(self, method: PromptMethod, bits: BitPlan) -> Observation:
        rows = self._windows[: self._inputs.sequences]
        parts = [prompts.split(bytes(row)) for row in rows[:, :PROMPT].tolist()]
        short = prompts.shorten(method, method.scorer(), parts, operands=True, bits=bits)
        ran, trace = prompts.decoded(self._model, short, rows[:, PROMPT : PROMPT + DECODED], bits)
        work = [prompt.compressed for prompt in short]
        charge = charged(dataclasses.replace(trace, model=self._name), work, spell(method))
        layers = range(ran[0].record.shape.layers)
        last = [run.record.passes[-1] for run in ran]
        tokens = {
            "sequences": len(ran),
            "attention": [sum(int(layers_of[layer].slots.max()) for layers_of in last) for layer in layers],
            "ffn": [sum(int(layers_of[layer].queries.sum()) for layers_of in last) for layer in layers],
            "heads": [sum(int(layers_of[layer].heads.sum()) for layers_of in last) for layer in layers],
        }
        more = {"prompt": prompt_facts(work, charge.flops - trace.flops, [len(prompt.content) for prompt in short])}
        return Observation(charge, tokens, unit_words(work[0]), unit_survival(work[0], len(layers)), more)

    def _measured_prompts(self, method: PromptMethod) -> dict[str, float]:
        count = self._inputs.paragraphs
        rows, scorer = self._windows[:count], method.scorer()
        short = prompts.shorten(method, scorer, [prompts.split(bytes(row)) for row in rows[:, :PROMPT].tolist()])
        loss = prompts.loss_behind(self._model, short, rows[:, PROMPT:])
        asked = [(bytes(row[:PROMPT]), bytes(row[PROMPT:])) for row in self._questions[:count].tolist()]
        right = prompts.answers(self._model, prompts.shorten(method, scorer, asked)) == self._answers[:count]
        share = sum(len(prompt.content) for prompt in short) / (count * PROMPT)
        return {
            "perplexity": math.exp(loss),
            "recall_accuracy": float(right.double().mean()),
            "held_bytes": share * self._dense["held_bytes"],
        }

    def _decode(self, method: Method, prompt: Tensor, given: Tensor, *, operands: bool = False) -> Decoded:
        return decode(self._model, method, prompt, given, operands=operands, seed=self._inputs.seed)


def _tensor(rows: list[bytes]) -> Tensor:
    return torch.tensor([list(row) for row in rows])


def _word(byte: int) -> str:
    return chr(byte) if 32 < byte < 127 else "␣"


def _letters(ran: Decoded) -> list[str]:
    """What the heads of each layer still hold of the first sequence's prompt, one letter a byte."""
    held, shared = ran.held[:, 0].any(1), ran.shared[:, 0].any(1)
    return [
        "".join(SHARED if merged else ALONE if there else GONE for there, merged in zip(*rows, strict=True))
        for rows in zip(held.tolist(), shared.tolist(), strict=True)
    ]
