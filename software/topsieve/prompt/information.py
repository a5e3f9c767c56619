"""Self-information of text under a causal language model.

Specification `methods-more`, section D (Selective-Context).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from topsieve.lowering import lower
from topsieve.models import reduce
from topsieve.prompt.roles import Run
from topsieve_sim.errors import InputError
from topsieve_sim.trace import Trace


@dataclass(frozen=True)
class Informed:
    """A token of a text: the characters `start` to `end` and -log of its probability, in nats."""

    start: int
    end: int
    information: float


@dataclass(frozen=True)
class InformationModel:
    """A causal language model that reads text behind a token that begins one.

    Parameters
    ----------
    model : decoder of a family that `topsieve.reduce` knows, with a language-model head.
    encode : text to token ids, with the characters (start, end) of each.
    begin : id of the token that stands before the text.
    positions : tokens that the model takes.
    """

    model: Any
    encode: Callable[[str], Sequence[tuple[int, int, int]]]
    begin: int
    positions: int

    def information(self, text: str, run: Run) -> tuple[list[Informed], Trace]:
        """Self-information of each token of `text`, which is not empty, and what it took."""
        tokens = self.encode(text)
        ids = [self.begin, *(token for token, _, _ in tokens)]
        if len(ids) > self.positions:
            raise InputError(
                f"a sentence has {len(ids)} tokens", field="prompt", allowed=f"at most {self.positions} tokens"
            )
        with torch.no_grad(), reduce(self.model, "dense", operands=run.operands) as dense:
            logits = self.model(input_ids=torch.tensor([ids])).logits[0]
            trace = lower(dense.record, operands=run.operands, bits=run.bits)
        found = -logits[:-1].double().log_softmax(-1)[torch.arange(len(tokens)), torch.tensor(ids[1:])]
        informed = [Informed(start, end, nats) for (_, start, end), nats in zip(tokens, found.tolist(), strict=True)]
        return informed, trace


def byte_gpt_information() -> InformationModel:
    """`byte-gpt`. It has no token that begins a text; the line end that stands between paragraphs takes its place."""
    from topsieve.subjects.byte_gpt.model import POSITIONS, load_byte_gpt

    return InformationModel(load_byte_gpt(), byte_tokens, ord("\n"), POSITIONS)


def byte_tokens(text: str) -> list[tuple[int, int, int]]:
    """The UTF-8 bytes of `text`, each with the characters it belongs to."""
    return [(byte, place, place + 1) for place, letter in enumerate(text) for byte in letter.encode()]
