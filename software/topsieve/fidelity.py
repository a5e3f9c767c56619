"""How much of a model's behaviour a reduction method keeps, measured on real text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from topsieve.corpus import Corpus, first_sentence
from topsieve.lowering import lower
from topsieve.methods import spell
from topsieve.models import mean_pool, reduce
from topsieve.pretrained import Pretrained
from topsieve.prompt import Prompt, compress
from topsieve.prompt.roles import PromptMethod
from topsieve.reduction.roles import Method

QUERIES = 32
NEIGHBOURS = 10
BATCH = 16


@dataclass(frozen=True)
class Embedded:
    """Unit vectors of texts, float [T, C], the method as text, and the FLOPs of the live tokens (layers only)."""

    method: str
    vectors: Tensor
    flops: int


@dataclass(frozen=True)
class Fidelity:
    """A method against the full model on one corpus.

    Parameters
    ----------
    cosine : mean over the paragraphs of the cosine between the embeddings of the reduced and of the full model.
    cosine_minimum : the smallest of these.
    recall : share of the full model's nearest paragraphs that the reduced model finds too. For each query q, F(q) and
        R(q) are the `neighbours` paragraphs of largest cosine to q when queries and paragraphs are embedded by the full
        and by the reduced model (of equal cosines the earlier paragraph); recall is the mean over the queries of
        |F(q) intersected with R(q)| / neighbours. Queries are the first sentences of evenly spaced paragraphs. Where the
        corpus has fewer paragraphs than `NEIGHBOURS`, `neighbours` is half of them, rounded up.
    flops, dense_flops : of the paragraphs and queries, live tokens, reduced and full.
    paragraphs, queries, neighbours : counts.
    """

    method: str
    cosine: float
    cosine_minimum: float
    recall: float
    flops: int
    dense_flops: int
    paragraphs: int
    queries: int
    neighbours: int


class FidelityTest:
    """The full model's embeddings of a corpus, to compare methods with; deterministic on one machine.

    An embedding is the size-weighted mean of the last hidden states, scaled to length 1.

    Parameters
    ----------
    pretrained : model and tokenizer.
    corpus : paragraphs.
    queries : queries to draw from it.

    Attributes
    ----------
    neighbours : paragraphs that a search takes.

    Raises
    ------
    InputError
        a paragraph is longer than the model takes.
    """

    def __init__(self, pretrained: Pretrained, corpus: Corpus, *, queries: int = QUERIES) -> None:
        self._pretrained = pretrained
        self._words = (*corpus.paragraphs, *corpus.queries(queries))
        self._texts = pretrained.tokens(corpus.paragraphs, source=corpus.name)
        self._paragraphs = len(self._texts)
        self._texts += pretrained.tokens(corpus.queries(queries), source=f"{corpus.name} queries")
        few = self._paragraphs < NEIGHBOURS
        self.neighbours = -(-self._paragraphs // 2) if few else NEIGHBOURS
        self._full = embed(pretrained, self._texts, "dense")
        self._nearest = self._search(self._full.vectors)

    def measure(self, method: str | Method, *, keep: float | None = None, seed: int = 0, **parameters: Any) -> Fidelity:
        """Fidelity of `method`; parameters as of `topsieve.reduce`."""
        embedded = embed(self._pretrained, self._texts, method, keep=keep, seed=seed, **parameters)
        return self._compared(embedded)

    def measure_prompts(self, method: PromptMethod) -> Fidelity:
        """Fidelity of a method that shortens texts before the full model reads them; FLOPs are its scorer's too."""
        scorer = method.scorer()
        short = [compress(method, asked(text), scorer=scorer) for text in self._words]
        rows = self._pretrained.tokens([prompt.text for prompt in short], source="shortened text")
        embedded = embed(self._pretrained, rows, "dense")
        scoring = sum(prompt.work.flops for prompt in short if prompt.work is not None)
        return self._compared(Embedded(spell(method), embedded.vectors, embedded.flops + scoring))

    def _compared(self, embedded: Embedded) -> Fidelity:
        """`embedded` against the full model."""
        cosine = (embedded.vectors * self._full.vectors).sum(-1)[: self._paragraphs]
        found = self._search(embedded.vectors)
        common = (found.unsqueeze(-1) == self._nearest.unsqueeze(-2)).any(-1)
        return Fidelity(
            method=embedded.method,
            cosine=float(cosine.mean()),
            cosine_minimum=float(cosine.min()),
            recall=float(common.double().mean()),
            flops=embedded.flops,
            dense_flops=self._full.flops,
            paragraphs=self._paragraphs,
            queries=len(self._texts) - self._paragraphs,
            neighbours=self.neighbours,
        )

    def _search(self, vectors: Tensor) -> Tensor:
        """int64 [Q, neighbours]: the nearest paragraphs of each query."""
        paragraphs, queries = vectors[: self._paragraphs], vectors[self._paragraphs :]
        order = (queries @ paragraphs.T).sort(dim=-1, descending=True, stable=True).indices
        return order[:, : self.neighbours]


def asked(text: str) -> Prompt:
    """`text` as a prompt; who reads it is taken to ask for what its first sentence speaks of."""
    return Prompt((text,), first_sentence(text))


def embed(
    pretrained: Pretrained,
    texts: Sequence[Sequence[int]],
    method: str | Method,
    *,
    keep: float | None = None,
    seed: int = 0,
    **parameters: Any,
) -> Embedded:
    """Embeddings of tokenised texts under `method`, in batches of similar length.

    Parameters
    ----------
    texts : token ids of each text, see `Pretrained.tokens`.
    method, keep, seed, parameters : as of `topsieve.reduce`.
    """
    order = sorted(range(len(texts)), key=lambda index: (len(texts[index]), index))
    vectors: dict[int, Tensor] = {}
    flops = 0
    with torch.inference_mode(), reduce(pretrained.model, method, keep=keep, seed=seed, **parameters) as reduced:
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            hidden = pretrained.model(**pretrained.batch([texts[index] for index in chosen])).last_hidden_state
            pooled = mean_pool(hidden, reduced.valid, reduced.size)
            vectors |= dict(zip(chosen, torch.nn.functional.normalize(pooled, dim=-1), strict=True))
            flops += lower(reduced.record).flops
    return Embedded(spell(reduced.method), torch.stack([vectors[index] for index in range(len(texts))]), flops)
