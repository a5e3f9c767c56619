"""`Attributor`: what each token of a sentence contributes to what an encoder makes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from topsieve.pretrained import Pretrained, load_pretrained
from topsieve.prompt.classifier import encoded
from topsieve.prompt.decompx import Head, attributed, decomposed, decompx_work
from topsieve.prompt.globenc import globenc, globenc_work
from topsieve.prompt.roles import Run
from topsieve.prompt.trail import shape_of
from topsieve.prompt.words import PieceRule
from topsieve_sim.errors import InputError
from topsieve_sim.trace import Trace


@dataclass(frozen=True)
class Attributor:
    """DecompX or GlobEnc on an encoder of the BERT family.

    Parameters
    ----------
    pretrained : model and tokenizer.
    how : "decompx": contributions to a score; "globenc": norms rolled out, no score needed.
    head : of DecompX, what makes scores of the first token (see `head_of`). Without one the score is the length of the
        mean of the last hidden states, that is of the sentence embedding, which tokens contribute to along its direction.
    label : which score of the head.
    rule : how the tokenizer marks pieces.
    """

    pretrained: Pretrained
    how: Literal["decompx", "globenc"]
    head: Head | None = None
    label: int = 0
    rule: PieceRule = PieceRule.BERT

    @property
    def specials(self) -> frozenset[str]:
        """Strings of the special tokens."""
        return frozenset(self.pretrained.tokenizer.special_tokens_map.values())

    def attribute(self, sentence: str, run: Run) -> tuple[list[str], NDArray[np.float32], Trace]:
        """The tokens of `sentence`, special ones included, float32 [n] what each contributes, and what it took.

        A sentence longer than the model takes is cut.
        """
        ids = self.pretrained.tokenizer(sentence, truncation=True, max_length=self.pretrained.max_tokens)["input_ids"]
        tokens: list[str] = self.pretrained.tokenizer.convert_ids_to_tokens(ids)
        _, trace = encoded(self.pretrained, ids, run)
        shape = shape_of(self.pretrained.model)
        with torch.no_grad():
            if self.how == "globenc":
                scores, work = globenc(self.pretrained.model, ids), globenc_work(shape, len(ids))
            else:
                scores, work = self._contributions(ids), decompx_work(shape, len(ids))
        return tokens, scores.to(torch.float32).cpu().numpy(), replace(trace, ops=(*trace.ops, *work))

    def _contributions(self, ids: list[int]) -> Tensor:
        parts = decomposed(self.pretrained.model, ids)
        if self.head is not None:
            return attributed(parts, self.head)[:, self.label]
        means = parts.mean(0)
        return means @ torch.nn.functional.normalize(means.sum(0), dim=-1)


def scaled(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """`scores` brought to 0 to 1; zeros where all are equal."""
    low, high = scores.min(), scores.max()
    return np.zeros_like(scores) if low == high else (scores - low) / (high - low)


def minilm_attributor(how: Literal["decompx", "globenc"]) -> Attributor:
    """MiniLM, which has no head: DecompX then speaks of the sentence embedding."""
    if how not in ("decompx", "globenc"):
        raise InputError("unknown value", field="how", value=how, allowed="decompx, globenc")
    return Attributor(load_pretrained(), how)
