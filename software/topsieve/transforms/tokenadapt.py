"""`TokenAdapt`: another tokenizer under a trained model, its embeddings mixed from the old ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from topsieve.corpus import MAXIMUM_WORDS, MINIMUM_WORDS
from topsieve.subjects.byte_gpt import text as reference
from topsieve.transforms.bpe import Bpe, trained
from topsieve.transforms.encoder import embedded, encoder_passes, minilm
from topsieve.transforms.transform import Outcome, Transform
from topsieve.transforms.workload import Workload

SOFTENER = 1e-5  # added to the temperature
PADDED_TO = 128
TRAINING_BYTES = 200_000
CONTINUES = "##"  # WordPiece's mark of a piece inside a word


def local_weights(cosines: Tensor, shares: Tensor, temperature: float) -> Tensor:
    """float [P], sums to one: from cosines to the new token's pieces and their shares of its characters, float [P]."""
    return ((cosines.softmax(-1) + shares) / 2 / (temperature + SOFTENER)).softmax(-1)


def global_weights(similarities: Tensor, temperature: float, threshold: float) -> Tensor:
    """float [N]: weights of the nearest old tokens; sums to one, or to zero where all lie under the threshold."""
    weights = (similarities / (temperature + SOFTENER)).softmax(-1) * (similarities >= threshold)
    return weights / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def combined(local: Tensor | None, nearest: Tensor | None, local_share: float) -> Tensor | None:
    """`local_share` of the one and the rest of the other; the one there is; None without any."""
    if local is None or nearest is None:
        return nearest if local is None else local
    return local_share * local + (1 - local_share) * nearest


def chunks(words: int) -> str:
    """Where supertokens may grow: up to `words` words, each with the blank before it; or marks."""
    return rf"(?: \w+){{1,{words}}}|\w+| ?[^\w\s]+"


@dataclass(frozen=True)
class TokenAdapt(Transform):
    """TokenAdapt with supertokens: a tokenizer whose tokens span words, and embeddings for it without training.

    Tinycompany, 2025; specification `methods-text`, section 19. Tokens that both tokenizers know are copied. A new one is
    mixed from the old pieces of its text (by cosine of text embeddings and by length) and from the old tokens nearest to
    it. What changes for attention is the number of tokens.

    MiniLM embeds the texts and is also the model that gets the new tokenizer. The nearest tokens are sought among those
    that the corpus uses, not in the whole vocabulary.

    Parameters
    ----------
    merges : of the new encoding. words : that a token may span.
    temperature, neighbours, threshold : of the weights. local_share : of the pieces, the rest is of the neighbours.
    paragraphs : of held-out topics, to compare embeddings of; other topics train the tokenizer.
    sequences : of them that are traced.
    seed : of the rows that nothing is known about.
    """

    name: ClassVar[str] = "tokenadapt"
    attention: ClassVar[str] = "another number of tokens for the same text"

    merges: int = 8000
    words: int = 3
    temperature: float = 0.3
    neighbours: int = 3
    threshold: float = 0.0
    local_share: float = 0.7
    paragraphs: int = 32
    sequences: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        self.need_counts(words=self.words, neighbours=self.neighbours, paragraphs=self.paragraphs)
        self.need_counts(sequences=self.sequences)
        self.need_counts(low=0, merges=self.merges)
        self.need("temperature", self.temperature >= 0, "a number of at least 0")
        self.need("local_share", 0 <= self.local_share <= 1, "a number in [0, 1]")

    def run(self) -> Outcome:
        tokenizer = minilm().tokenizer
        content = reference.reference(held_out=True).decode()
        fitting = [text for text in content.split("\n\n") if MINIMUM_WORDS <= len(text.split()) <= MAXIMUM_WORDS]
        texts = [_lowered(text) for text in fitting[: self.paragraphs]]
        training = _lowered(reference.reference(held_out=False)[:TRAINING_BYTES].decode())
        encoding = trained(
            training, self.merges, chunks=chunks(self.words), alphabet=sorted({*training, *"".join(texts)})
        )
        old = [tokenizer(text)["input_ids"] for text in texts]
        candidates = sorted({token for row in old for token in row})
        first, last = len(encoding.vocabulary), len(encoding.vocabulary) + 1
        new = [[first, *encoding.encode(text), last] for text in texts]
        table, copied, made = self.transplanted(
            encoding, sorted({token for row in new for token in row[1:-1]}), candidates
        )
        wanted = embedded(old)
        alike = float((embedded(new, table) * wanted).sum(-1).mean())
        blank = table.clone()
        blank[made] = self._drawn(len(made))
        unlike = float((embedded(new, blank) * wanted).sum(-1).mean())
        counts = [[len(row) for row in rows] for rows in (old, new)]
        ratio = sum(counts[1]) / sum(counts[0])
        plain, changed = (
            Workload(encoder_passes(rows[: self.sequences]), method)
            for rows, method in zip(counts, ("old tokenizer", self.name), strict=True)
        )
        facts = {
            "tokens_ratio": ratio,
            "cosine": alike,
            "cosine_with_random_rows": unlike,
            "copied_tokens": len(copied),
            "mixed_tokens": len(made),
        }
        effect = f"{ratio:.2f} of the tokens; cosine to the old embeddings {alike:.2f}, with random rows {unlike:.2f}"
        return Outcome(changed, plain, facts, effect)

    def transplanted(
        self, encoding: Bpe, used: Sequence[int], candidates: Sequence[int]
    ) -> tuple[Tensor, list[int], list[int]]:
        """float [rows, D]: embeddings of `encoding`'s tokens, then of CLS and SEP; and which were copied and mixed.

        Only tokens that are `used` get more than a random row; neighbours are old tokens among the `candidates`.
        """
        tokenizer, old = minilm().tokenizer, _old_embeddings()
        known = tokenizer.get_vocab()
        rows = len(encoding.vocabulary) + 2
        table = self._drawn(-(-rows // PADDED_TO) * PADDED_TO)
        table[rows - 2], table[rows - 1] = old[tokenizer.cls_token_id], old[tokenizer.sep_token_id]
        copied: list[int] = []
        missing: dict[int, str] = {}
        for token in used:
            text = encoding.vocabulary[token]
            same = text[1:] if text.startswith(" ") else CONTINUES + text
            same = known.get(same, known.get(text))
            if same is None:
                missing[token] = text.strip()
            else:
                table[token] = old[same]
                copied.append(token)
        names = [re.sub(f"^{CONTINUES}", "", tokenizer.convert_ids_to_tokens(token)) for token in candidates]
        near = _embedded_texts(names)
        pieces = {text: tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)) for text in missing.values()}
        spelt = {piece: tokenizer.convert_ids_to_tokens(piece) for row in pieces.values() for piece in row}
        spelt = {piece: text.removeprefix(CONTINUES) for piece, text in spelt.items()}
        vectors = dict(zip(spelt, _embedded_texts(list(spelt.values())), strict=True))
        wanted = _embedded_texts(list(missing.values()))
        for (token, text), vector in zip(missing.items(), wanted, strict=True):
            mixed = combined(
                self._of_pieces(text, vector, pieces[text], spelt, vectors, old),
                self._of_neighbours(near @ vector, candidates, old),
                self.local_share,
            )
            if mixed is not None:
                table[token] = mixed
        return table, copied, list(missing)

    def _of_pieces(
        self,
        text: str,
        vector: Tensor,
        pieces: list[int],
        spelt: dict[int, str],
        vectors: dict[int, Tensor],
        old: Tensor,
    ) -> Tensor | None:
        if not pieces:
            return None
        cosines = torch.stack([vectors[piece] @ vector for piece in pieces])
        shares = torch.tensor([len(spelt[piece]) / len(text) for piece in pieces])
        return local_weights(cosines, shares, self.temperature) @ old[pieces]

    def _of_neighbours(self, similarities: Tensor, candidates: Sequence[int], old: Tensor) -> Tensor | None:
        order = similarities.sort(stable=True, descending=True)
        weights = global_weights(order.values[: self.neighbours], self.temperature, self.threshold)
        if not bool(weights.any()):
            return None
        return weights @ old[[candidates[index] for index in order.indices[: self.neighbours].tolist()]]

    def _drawn(self, rows: int) -> Tensor:
        """float [rows, D] of the normal distribution with the old matrix's mean and deviation."""
        old = _old_embeddings()
        draw = torch.Generator().manual_seed(self.seed)
        return torch.randn(rows, old.shape[1], generator=draw) * old.std() + old.mean()


def _lowered(paragraph: str) -> str:
    """As MiniLM reads it, with a blank before every word."""
    return " " + " ".join(paragraph.lower().split())


def _old_embeddings() -> Tensor:
    model: Any = minilm().model
    return model.embeddings.word_embeddings.weight.detach()


def _embedded_texts(texts: Sequence[str]) -> Tensor:
    """float [T, D]: unit vectors of short texts."""
    return embedded([minilm().tokenizer(text)["input_ids"] for text in texts])
