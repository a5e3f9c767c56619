"""Judges of sentences: does this sentence help to answer the question? Two scores, for yes and for no.

Specification `methods-text`, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Protocol

import torch
from torch import Tensor

from topsieve.lowering import lower
from topsieve.models import reduce
from topsieve.pretrained import Pretrained, load_pretrained
from topsieve.prompt.classifier import encoded, saved_heads
from topsieve.prompt.lowering import behind_prefix
from topsieve.prompt.roles import Run
from topsieve_sim.errors import InputError
from topsieve_sim.trace import Trace

# One turn of a conversation as Gemma writes it; the four parts in the published order, in our words.
TEMPLATE = (
    "<start_of_turn>user\nQuestion: {question}\nWhole context: {context}\nSentence: {sentence}\n"
    'Does this sentence help to answer the question? Say only "Yes" or "No".<end_of_turn>\n<start_of_turn>model\n'
)


class Judge(Protocol):
    """Anything that scores sentences."""

    def logits(
        self, question: str, context: str, sentences: Sequence[str], run: Run
    ) -> tuple[list[tuple[float, float]], list[Trace]]:
        """The scores of yes and no of each sentence, and the passes that it took."""
        ...


@dataclass(frozen=True)
class LanguageModelJudge:
    """A causal language model that is asked about each sentence: its scores of the tokens "Yes" and "No".

    Parameters
    ----------
    model : decoder of a family that `topsieve.reduce` knows, with a language-model head.
    encode : text to token ids.
    yes, no : ids of the first token of the two answers.
    positions : tokens that the model takes.
    template : with the fields question, context and sentence.
    """

    model: Any
    encode: Callable[[str], Sequence[int]]
    yes: int
    no: int
    positions: int
    template: str = TEMPLATE

    def logits(
        self, question: str, context: str, sentences: Sequence[str], run: Run
    ) -> tuple[list[tuple[float, float]], list[Trace]]:
        scores: list[tuple[float, float]] = []
        passes: list[Trace] = []
        first: list[int] = []
        for sentence in sentences:
            ids = list(self.encode(self.template.format(question=question, context=context, sentence=sentence)))
            if len(ids) > self.positions:
                raise InputError(
                    f"question, context and sentence have {len(ids)} tokens",
                    field="prompt",
                    allowed=f"at most {self.positions} tokens",
                )
            with torch.no_grad(), reduce(self.model, "dense", operands=run.operands) as dense:
                last: Tensor = self.model(input_ids=torch.tensor([ids])).logits[0, -1]
                trace = lower(dense.record, operands=run.operands, bits=run.bits)
            # At least one token must be new, or there would be no scores.
            alike = min(alike_at_first(first, ids), len(ids) - 1)
            passes.append(behind_prefix(trace, alike) if run.share_prefix and alike else trace)
            first = first or ids
            scores.append((float(last[self.yes]), float(last[self.no])))
        return scores, passes


def alike_at_first(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens the two begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))


@dataclass(frozen=True)
class EmbeddingJudge:
    """Yes by the cosine of the embeddings of question and sentence, learned scale and border; no is 0.

    Parameters
    ----------
    pretrained : encoder and tokenizer.
    scale, bias : the score of yes is scale x cosine + bias.
    """

    pretrained: Pretrained
    scale: float
    bias: float

    def logits(
        self, question: str, context: str, sentences: Sequence[str], run: Run
    ) -> tuple[list[tuple[float, float]], list[Trace]]:
        passes: list[Trace] = []
        vectors = []
        for row in self.pretrained.tokens([question, *sentences], source="prompt"):
            hidden, trace = encoded(self.pretrained, row, run)
            vectors.append(torch.nn.functional.normalize(hidden[0].mean(0), dim=-1))
            passes.append(trace)
        yes = [self.scale * float(vectors[0] @ vector) + self.bias for vector in vectors[1:]]
        return [(score, 0.0) for score in yes], passes


def minilm_judge() -> EmbeddingJudge:
    """MiniLM with the scale and border of this package: see `topsieve.prompt.train` for what it learned."""
    heads = saved_heads()
    return EmbeddingJudge(load_pretrained(), float(heads["judge.weight"]), float(heads["judge.bias"]))
