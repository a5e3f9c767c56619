"""`LlmLingua2`: keep the words that a token classifier would keep."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from topsieve.methods.checks import check_choice, check_count, check_flag, check_range, check_share
from topsieve.prompt.lowering import Decided, joined
from topsieve.prompt.roles import Compressed, Prompt, PromptOnly, Run, TokenCount, pruned, unchanged
from topsieve.prompt.words import Piece, Word, word_probability, words_of
from topsieve.reduction.budget import Rounding, exact, rounded
from topsieve_sim.trace import TopKScope, Trace
from topsieve_sim.trace.ops import Merge, Threshold, TopK

CHUNK_ENDS = (".", "\n")
PLACEHOLDER = "[NEW{}]"
# What stands between the contexts of a shortened prompt.
BETWEEN = "\n\n"


@dataclass(frozen=True)
class LlmLingua2(PromptOnly):
    """LLMLingua-2: keep the words that a token classifier would keep.

    Pan et al., ACL Findings 2024; specification `methods-text`, section 2.

    An encoder says for each word piece how likely it should stay; a word has the mean of its pieces. In each chunk of the
    text, words over the percentile that the rate asks for stay. Several contexts are first thinned as wholes. Signals:
    the classifier's probabilities.

    Differences from the published code: forced tokens of several pieces are read by the encoder as unknown, their
    embeddings are not drawn at random; where nobody says how many tokens the target model makes of a word, the scorer's
    pieces are counted instead of those of GPT-3.5.

    Parameters
    ----------
    keep : the rate: share of the words that stay, in (0, 1]. By the published percentile somewhat fewer stay.
    target_tokens : tokens to keep of all contexts; replaces the rate. -1 for none.
    context_filter : thin several contexts first; token_filter : thin the words.
    target_context, context_rate, context_target_tokens : contexts to keep by number, share or tokens; -1, 1 and -1 leave it
        to the rate.
    token_to_word : "mean" of a word's pieces, or the "first" piece.
    force_tokens : words that stay.
    force_digits : words with a digit stay.
    drop_consecutive : of the same forced word twice in a row, one stays.
    surface : "tokens": what stays is written as the tokenizer joins pieces; "source": as it stood in the text.
    variant : "official": the published code, a percentile a chunk and strictly more; "paper": of all words of a chunk the
        rate's share of the most probable, rounded down, one at least; ties to the earlier word.
    """

    name: ClassVar[str] = "llmlingua-2"

    keep: float = 0.5
    target_tokens: int = -1
    context_filter: bool = True
    token_filter: bool = True
    target_context: int = -1
    context_rate: float = 1.0
    context_target_tokens: int = -1
    token_to_word: Literal["mean", "first"] = "mean"
    force_tokens: tuple[str, ...] = ()
    force_digits: bool = False
    drop_consecutive: bool = False
    surface: Literal["tokens", "source"] = "tokens"
    variant: Literal["official", "paper"] = "official"

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        for field in ("target_tokens", "target_context", "context_target_tokens"):
            check_count(self.name, field, getattr(self, field), low=-1)
        check_range(self.name, "context_rate", self.context_rate, 0)
        for field in ("context_filter", "token_filter", "force_digits", "drop_consecutive"):
            check_flag(self.name, field, getattr(self, field))
        check_choice(self.name, "token_to_word", self.token_to_word, ("mean", "first"))
        check_choice(self.name, "surface", self.surface, ("tokens", "source"))
        check_choice(self.name, "variant", self.variant, ("official", "paper"))

    def scorer(self) -> Any:
        """MiniLM with this package's head."""
        from topsieve.prompt.classifier import minilm_classifier

        return minilm_classifier("literal" if self.variant == "official" else "own")

    def prompt(self, prompt: Prompt, scorer: Any, run: Run) -> Compressed:
        """Shorten the contexts; the question stays outside."""
        if not self._reduces(len(prompt.contexts)):
            return unchanged(BETWEEN.join(prompt.contexts), prompt.contexts)
        count = run.count or (lambda text: len(scorer.pieces(text)))
        contexts = [_Context(text, self, scorer, run) for text in prompt.contexts]
        rate, kept = self._kept_contexts(contexts, count)
        decisions: list[Decided] = [op for context in contexts for op in context.pooling]
        units: list[str] = []
        scores: list[float] = []
        stay: list[int] = []
        texts = []
        filtered = self.token_filter and rate < 1
        for number, context in enumerate(contexts):
            written: list[tuple[_Chunk, list[int]]] = []
            for chunk in context.chunks:
                found = [word_probability(word.probabilities, self.token_to_word) for word in chunk.words]
                places = list(range(len(found))) if number in kept else []
                if places and filtered:
                    found, places = self.kept_words([word.text for word in chunk.words], found, rate, count)
                    decisions += _selection(found, len(places), self.variant)
                written.append((chunk, places))
                stay += [len(units) + place for place in places]
                units += [word.text for word in chunk.words]
                scores += found
            if number in kept:
                texts.append(self._written(context.text, written, scorer, filtered))
        passes = [chunk.trace for context in contexts for chunk in context.chunks]
        return Compressed(BETWEEN.join(texts), tuple(units), pruned(scores, stay), joined(passes, decisions))

    def kept_words(
        self, words: Sequence[str], probabilities: Sequence[float], rate: float, count: TokenCount
    ) -> tuple[list[float], list[int]]:
        """The words of one chunk that stay, ascending, and the probabilities they were chosen by (steps 13 to 17)."""
        reduce = max(0, 1 - rate)
        found = list(probabilities)
        if not found:
            return found, []
        if self.drop_consecutive:
            found = self._without_repeats(words, found, reduce)
        if self.variant == "paper":
            number = max(1, rounded(exact(rate) * len(found), Rounding.FLOOR))
            return found, sorted(sorted(range(len(found)), key=lambda index: -found[index])[:number])
        # Each word weighs as many times as the target model has tokens for it.
        weighed = [p for word, p in zip(words, found, strict=True) for _ in range(count(word))]
        # The index of the percentile is one off and cut, as published: a rate of 0.8 asks for 20, not 21.
        limit = float(np.percentile(np.array(weighed or found, dtype=np.float64), min(100, int(100 * reduce + 1))))
        stay = []
        before = None
        for index, (word, p) in enumerate(zip(words, found, strict=True)):
            if p > limit or (limit == 1.0 and p == 1.0):
                if self.drop_consecutive and word in self.force_tokens and word == before:
                    continue
                stay.append(index)
                before = word
        return found, stay

    def _reduces(self, contexts: int) -> bool:
        """Whether anything could go: a rate of 1 without targets keeps all."""
        targets = self.target_tokens >= 0
        by_context = self.context_rate < 1 or self.target_context >= 0 or self.context_target_tokens >= 0
        return self.keep < 1 or targets or (contexts > 1 and self.context_filter and by_context)

    def _without_repeats(self, words: Sequence[str], probabilities: list[float], reduce: float) -> list[float]:
        """Step 14: of two equal forced words with nothing worth keeping between them, the second gets 0."""
        limit = float(np.percentile(np.array(probabilities, dtype=np.float64), int(100 * reduce)))
        found = list(probabilities)
        between, before = False, None
        for index, (word, p) in enumerate(zip(words, probabilities, strict=True)):
            if word in self.force_tokens:
                if between:
                    between = False
                elif word == before:
                    found[index] = 0.0
                before = word
            else:
                between = between or p > limit
        return found

    def _kept_contexts(self, contexts: Sequence[_Context], count: TokenCount) -> tuple[float, Collection[int]]:
        """The rate that is left for the words, and the contexts that stay (steps 11 and 12)."""
        rate: float = self.keep
        whole = sum(count(context.text) for context in contexts)
        if len(contexts) < 2 or not self.context_filter:
            if self.target_tokens > 0:
                rate = min(self.target_tokens / max(whole, 1), 1.0)
            return rate, range(len(contexts))
        share, tokens = self.context_rate, self.context_target_tokens
        if self.target_context <= 0 and share >= 1 and tokens <= 0:
            if self.target_tokens < 0 and rate < 1:
                share = (rate + 1) / 2 if self.token_filter else rate
            if self.target_tokens >= 0:
                tokens = self.target_tokens * (2 if self.token_filter else 1)
        if self.target_context >= 0:
            share = min(self.target_context / len(contexts), 1.0)
        if tokens >= 0:
            share = min(tokens / max(whole, 1), 1.0)
        means = [context.mean(self.token_to_word) for context in contexts]
        limit = float(np.percentile(np.array(means), int(100 * (1 - share))))
        kept = [number for number, mean in enumerate(means) if mean >= limit]
        if self.target_tokens >= 0:
            left = sum(count(chunk.text) for number in kept for chunk in contexts[number].chunks)
            rate = min(self.target_tokens / max(left, 1), 1.0)
        return rate, kept

    def _written(self, context: str, chunks: Sequence[tuple[_Chunk, list[int]]], scorer: Any, filtered: bool) -> str:
        """The words at the places of each chunk as text; where no words were filtered, all of it."""
        if self.surface == "tokens":
            return "".join(
                scorer.text([chunk.words[place].text for place in places]) if filtered else chunk.text
                for chunk, places in chunks
            )
        if not filtered:
            return context
        kept = [chunk.words[place] for chunk, places in chunks for place in places]
        text = ""
        for before, word in zip([None, *kept], kept, strict=False):
            apart = before is not None and before.end < word.start
            text += (" " if apart else "") + context[word.start : word.end]
        return text


@dataclass(frozen=True)
class _Chunk:
    """A piece of a context that the classifier reads at once."""

    text: str
    words: list[Word]
    trace: Trace


class _Context:
    """One context, cut into chunks and scored."""

    def __init__(self, text: str, method: LlmLingua2, scorer: Any, run: Run) -> None:
        self.text = text
        placeholders = _placeholders(method.force_tokens, scorer)
        ends = {*CHUNK_ENDS, *(placeholders[end] for end in CHUNK_ENDS if end in placeholders)}
        specials = scorer.specials
        self.chunks: list[_Chunk] = []
        self.pooling: list[Decided] = []
        pieces = _marked(scorer.pieces(text), text, placeholders, scorer)
        for part in chunked(pieces, ends, scorer.chunk_tokens):
            content, own = text, part
            if method.surface == "tokens":
                content = scorer.text([piece.text for piece in part])
                own = _marked(scorer.pieces(content), content, placeholders, scorer)[: scorer.chunk_tokens + 1]
            probabilities, trace = scorer.probabilities([piece.text for piece in own], run)
            words = words_of(
                own,
                list(probabilities),
                scorer.rule,
                specials=specials,
                forced=method.force_tokens,
                placeholders=placeholders,
                reserve_digits=method.force_digits,
            )
            if method.surface == "tokens":
                for token, placeholder in placeholders.items():
                    content = content.replace(placeholder, token)
            self.chunks.append(_Chunk(content, words, trace))
            if words:
                self.pooling.append((Merge(layer=0, sources=len(own), targets=len(words), width=1), ()))

    def mean(self, how: str) -> float:
        """Mean probability of all words as the classifier gave it, before forcing; 0 without words."""
        found = [word_probability(word.unforced, how) for chunk in self.chunks for word in chunk.words]
        return sum(found) / len(found) if found else 0.0


def chunked(pieces: Sequence[Piece], ends: Collection[str], limit: int) -> list[list[Piece]]:
    """`pieces` in chunks that end behind a piece of `ends` where one is near (step 5); up to `limit` + 1 pieces each."""
    chunks = []
    start = 0
    while start < len(pieces):
        if start + limit > len(pieces) - 1:
            chunks.append(list(pieces[start:]))
            break
        end = start + limit
        back = next((step for step in range(limit) if pieces[end - step].text in ends), 0)
        end -= back
        chunks.append(list(pieces[start : end + 1]))
        start = end + 1
    return chunks


def _placeholders(force_tokens: Sequence[str], scorer: Any) -> dict[str, str]:
    """Forced tokens that are several pieces, or none, to the one piece that stands for each (step 2)."""
    several = ((index, token) for index, token in enumerate(force_tokens) if len(scorer.pieces(token)) != 1)
    return {token: PLACEHOLDER.format(index) for index, token in several}


def _marked(pieces: list[Piece], text: str, placeholders: dict[str, str], scorer: Any) -> list[Piece]:
    """The pieces of `text`, each occurrence of a placeholder's token, or of the placeholder, as one piece."""
    if not placeholders:
        return pieces
    found: list[Piece] = []
    names = {name: placeholder for token, placeholder in placeholders.items() for name in (token, placeholder)}
    start = 0
    while start < len(text):
        here = [(place, name) for name in names if (place := text.find(name, start)) >= 0]
        place, name = min(here, default=(len(text), ""), key=lambda item: item[0])
        inside = scorer.pieces(text[start:place])
        found += [Piece(piece.text, piece.start + start, piece.end + start) for piece in inside]
        if name:
            found.append(Piece(names[name], place, place + len(name)))
        start = place + max(len(name), 1)
    return found


def _selection(scores: Sequence[float], kept: int, variant: str) -> list[Decided]:
    """What choosing among the words of one chunk takes: an order statistic and a compare, or a top-k."""
    words = len(scores)
    if variant == "paper":
        return [(TopK(layer=0, n=words, k=kept, scope=TopKScope.TOKEN), scores)]
    statistic = TopK(layer=0, n=words, k=min(words, kept + 1), scope=TopKScope.TOKEN)
    return [(statistic, scores), (Threshold(layer=0, n=words, kept=kept), ())]
