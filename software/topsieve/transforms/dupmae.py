"""`DupMae`: retrieval by two vectors, the class token's and the largest word scores of the other tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from topsieve.corpus import first_sentence, python_reference
from topsieve.transforms.encoder import encoder_passes, minilm, shape, states
from topsieve.transforms.transform import Outcome, Transform
from topsieve.transforms.workload import OUTSIDE, Pass, Workload, exact_topk, output_head
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import ArgmaxRow

MASKED = -1000.0
PATTERNS = 256  # rows of the mask that are drawn; longer texts use them again


def visibility(tokens: int, ratio: float, draw: torch.Generator) -> Tensor:
    """bool [n, 1 + n]: what each position of the decoder may look at; column 0 is the sentence embedding.

    Each row hides its own position and, of the others, all but a share of 1 - `ratio` (rounded down) drawn at random.
    """
    scores = torch.rand(min(tokens, PATTERNS), tokens, generator=draw)
    scores = scores.repeat(-(-tokens // PATTERNS), 1)[:tokens]
    scores.fill_diagonal_(2.0)  # behind all others
    seen = int((tokens - 1) * (1 - ratio))
    rank = scores.argsort(stable=True, dim=-1).argsort(-1)
    return torch.cat((torch.ones(tokens, 1, dtype=torch.bool), rank < seen), 1)


def decoded(sentence: Tensor, positions: Tensor, tokens: Tensor, visible: Tensor, heads: int) -> Tensor:
    """float [n, D]: attention of the decoder's one layer, without its projections.

    Parameters
    ----------
    sentence : float [D], added to positions float [n, D] as queries. tokens : float [n, D], clean embeddings; keys and
        values are the sentence's and theirs. visible : as of `visibility`.
    """

    def split(rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (heads, -1)).transpose(0, 1)

    known = split(torch.cat((sentence[None], tokens)))
    out: Tensor = torch.nn.functional.scaled_dot_product_attention(
        split(sentence + positions), known, known, attn_mask=visible
    )
    return out.transpose(0, 1).flatten(1)


def lexical(logits: Tensor, valid: Tensor) -> Tensor:
    """float [V]: largest logit of each word over the tokens; logits float [n, V], `valid` bool [n] leaves tokens out."""
    return logits.masked_fill(~valid[:, None], MASKED).amax(0)


def word_loss(scores: Tensor, words: Sequence[int]) -> Tensor:
    """Cross-entropy of the distinct `words`, each with the same weight, under the softmax of `scores` float [V]."""
    distinct = sorted(set(words))
    return -scores.log_softmax(-1)[distinct].mean()


def strongest(scores: Tensor, count: int) -> Tensor:
    """float [V]: the `count` largest of `scores` stay, others are 0; ties go to the lowest word."""
    kept = scores.sort(stable=True, descending=True).indices[:count]
    return torch.zeros_like(scores).index_copy(0, kept, scores[kept])


@dataclass(frozen=True)
class DupMae(Transform):
    """RetroMAE v2 (DupMAE): a text is its class token's vector and its strongest words, both from one encoder pass.

    Xiao et al., ACL 2023; specification `methods-text`, section 16. The ordinary tokens' word scores, n x V, are reduced to
    the largest of each column, and the strongest stay: a stream over the vocabulary behind an unchanged attention. In
    training a decoder of one layer reconstructs every token from the sentence embedding and a random half of the others.

    MiniLM was not trained this way: its tied embeddings stand in for the output map, and its class token is not reduced.

    Parameters
    ----------
    words : of the lexical vector that stay. weight : of the lexical cosine beside the class token's.
    training : adds the decoder's pass. ratio : of hidden tokens in it.
    texts : paragraphs of the Python reference; the first sentence looks for the rest. sequences : of them that are traced.
    """

    name: ClassVar[str] = "dupmae"
    attention: ClassVar[str] = "unchanged; a column maximum over tokens x vocabulary behind it"

    words: int = 128
    weight: float = 1.0
    training: bool = False
    ratio: float = 0.5
    texts: int = 64
    sequences: int = 4

    def __post_init__(self) -> None:
        self.need_counts(words=self.words, sequences=self.sequences)
        self.need_counts(low=2, texts=self.texts)
        self.need("ratio", 0 <= self.ratio < 1, "a number in [0, 1)")
        self.need("weight", self.weight >= 0, "a number of at least 0")

    def run(self) -> Outcome:
        paragraphs = [text for text in python_reference(self.texts).paragraphs if first_sentence(text) != text]
        pairs = [(first_sentence(text), text[len(first_sentence(text)) :]) for text in paragraphs]
        asked, told = (self.vectors([pair[side] for pair in pairs]) for side in (0, 1))
        recall = {
            "class_token": _recall(asked[0] @ told[0].T),
            "words": _recall(asked[1] @ told[1].T),
            "both": _recall(asked[0] @ told[0].T + self.weight * (asked[1] @ told[1].T)),
        }
        of, size = shape(), minilm().model.config.vocab_size
        lengths = [len(row) for row in minilm().tokens(paragraphs[: self.sequences])]
        passes: list[Pass] = []
        for number, length in enumerate(lengths):
            work: tuple[Op, ...] = (
                output_head(of, length, size),
                ArgmaxRow(layer=OUTSIDE, rows=size, cols=length),
                *exact_topk(size, self.words),
            )
            (encoder,) = encoder_passes([length], work)
            passes.append(replace(encoder, sequence=number))
            if self.training:
                decoder = replace(of, name="decoder", layers=1)
                masked = Pass(shape=decoder, queries=length, keys=length + 1, causal=False, sequence=number)
                passes.append(masked)
        facts = {f"recall_at_1_{name}": value for name, value in recall.items()}
        effect = (
            f"recall@1 {recall['both']:.0%} with both vectors, class token alone {recall['class_token']:.0%}, "
            f"words alone {recall['words']:.0%}"
        )
        plain = Workload(encoder_passes(lengths), "class token")
        return Outcome(Workload(tuple(passes), self.name), plain, facts, effect)

    def vectors(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Unit vectors of the class tokens float [T, D] and of the strongest words float [T, V]."""
        loaded: Any = minilm()
        table = loaded.model.embeddings.word_embeddings.weight.detach()
        rows = loaded.tokens(texts)
        classes, words = [], []
        for row, hidden in zip(rows, states(rows), strict=True):
            valid = torch.tensor([token not in loaded.tokenizer.all_special_ids for token in row])
            classes.append(hidden[0])
            words.append(strongest(lexical(hidden @ table.T, valid), self.words))
        unit = torch.nn.functional.normalize
        return unit(torch.stack(classes), dim=-1), unit(torch.stack(words), dim=-1)


def _recall(similarities: Tensor) -> float:
    """Share of the rows whose own column is the largest."""
    return float((similarities.argmax(-1) == torch.arange(len(similarities))).double().mean())
