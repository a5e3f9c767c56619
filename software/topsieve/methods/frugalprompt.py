"""`FrugalPrompt`: keep the words that contribute most to what an encoder makes of their sentence."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from topsieve.corpus import sentences
from topsieve.methods.checks import check_choice, check_flag, check_share
from topsieve.prompt.attribution import scaled
from topsieve.prompt.lexrank import inverse_frequencies, lexrank
from topsieve.prompt.lowering import Decided, joined
from topsieve.prompt.roles import Compressed, Prompt, PromptOnly, Run, pruned, unchanged
from topsieve.prompt.words import WORD_MARK, PieceRule
from topsieve.reduction.budget import Rounding, exact, rounded
from topsieve_sim.trace import TopKScope
from topsieve_sim.trace.ops import Merge, TopK

BYTE_MARK = "Ġ"  # GPT-2 and RoBERTa begin a word with it
_NUMBER = re.compile(r"-?[\d,]*\.?\d+")

Unit = tuple[str, np.float32]


@dataclass(frozen=True)
class FrugalPrompt(PromptOnly):
    """FrugalPrompt: keep the words that contribute most to what an encoder makes of their sentence.

    Raiyan et al., 2025; specification `methods-text`, section 3.

    Each sentence is attributed by itself; the pieces of a word add up; of all words of the text a share stays, in order,
    with blanks between them. Signals: every hidden state on the way through the scorer, see `topsieve.prompt.decompx` and
    `topsieve.prompt.globenc`.

    Differences from the published code: sentences end where `topsieve.corpus.sentences` says, not where NLTK does; a
    sentence whose tokens all contribute the same gets zeros; pieces are joined by the rule of the scorer's tokenizer.

    Parameters
    ----------
    keep : share of the words that stay, in (0, 1], of the count rounded to the nearest, halves to even. Published: 0.8,
        0.6 and 0.5.
    attribution : "decompx", or "globenc" with small letters and sentences weighted by LexRank.
    keep_numbers : numbers that the question holds stay, as published for one task.
    variant : "official": as published: of equal words the one whose text is larger stays, then the later one; joined
        DecompX words are cut to the longest token that there was when the first two were joined; LexRank counts
        characters as documents. "paper": of equal words the earlier one stays, no word is cut, and sentences are
        LexRank's documents.
    """

    name: ClassVar[str] = "frugalprompt"

    keep: float = 0.8
    attribution: Literal["decompx", "globenc"] = "decompx"
    keep_numbers: bool = False
    variant: Literal["official", "paper"] = "official"

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)
        check_choice(self.name, "attribution", self.attribution, ("decompx", "globenc"))
        check_flag(self.name, "keep_numbers", self.keep_numbers)
        check_choice(self.name, "variant", self.variant, ("official", "paper"))

    def scorer(self) -> Any:
        """MiniLM."""
        from topsieve.prompt.attribution import minilm_attributor

        return minilm_attributor(self.attribution)

    def prompt(self, prompt: Prompt, scorer: Any, run: Run) -> Compressed:
        """Shorten all contexts as one text."""
        text = "\n\n".join(prompt.contexts)
        found = sentences(text)
        if self.keep == 1 or not found:
            return unchanged(text, (text,) if found else ())
        marked, passes = [], []
        for sentence in found:
            tokens, scores, trace = scorer.attribute(sentence.lower() if self._globenc else sentence, run)
            marked.append((tokens, scaled(scores)))
            passes.append(trace)
        merged = self._merged(found, marked, scorer)
        words = [(text, float(score)) for text, score in merged if text not in scorer.specials]
        units = [_stripped(text) for text, _ in words]
        scores = [score for _, score in words]
        if self.keep_numbers:
            numbers = set(_NUMBER.findall(prompt.question))
            scores = [math.inf if unit in numbers else score for unit, score in zip(units, scores, strict=True)]
        # Equal scores are told apart by the words as the tokenizer marks them.
        kept = self.kept([text for text, _ in words], scores)
        pieces = sum(len(tokens) for tokens, _ in marked)
        decisions: list[Decided] = []
        if units:
            decisions.append((Merge(layer=0, sources=pieces, targets=len(units), width=1), ()))
            decisions.append((TopK(layer=0, n=len(units), k=len(kept), scope=TopKScope.TOKEN), scores))
        written = " ".join(units[number] for number in kept)
        return Compressed(written, tuple(units), pruned(scores, kept), joined(passes, decisions))

    def kept(self, units: Sequence[str], scores: Sequence[float]) -> list[int]:
        """Numbers of the units that stay, ascending (section 3a)."""
        count = rounded(exact(self.keep) * len(units), Rounding.HALF_EVEN)
        return sorted(self.ranked(units, scores)[:count])

    def ranked(self, units: Sequence[str], scores: Sequence[float]) -> list[int]:
        """Numbers of the units, the first to stay first."""
        if self.variant == "paper":
            return sorted(range(len(units)), key=lambda number: -scores[number])
        return sorted(range(len(units)), key=lambda number: (scores[number], units[number], number), reverse=True)

    @property
    def _globenc(self) -> bool:
        return self.attribution == "globenc"

    def _merged(self, found: Sequence[str], marked: Sequence[tuple[list[str], Any]], scorer: Any) -> list[Unit]:
        """The words of all sentences, special tokens among them, with their scores."""
        if not self._globenc:
            tokens = [token for part, _ in marked for token in part]
            scores = [score for _, part in marked for score in part]
            cut = self.variant == "official"
            return merged_pieces(tokens, scores, scorer.rule, scorer.specials, cut_to_first_width=cut)
        documents = list(" ".join(found)) if self.variant == "official" else list(found)
        weights = lexrank(found, inverse_frequencies(documents))
        words = []
        for (tokens, scores), weight in zip(marked, weights, strict=True):
            joined_words = merged_pieces(tokens, list(scores), scorer.rule, scorer.specials)
            again = scaled(np.array([score for _, score in joined_words], dtype=np.float32))
            words += [
                (text, np.float32(score * np.float32(weight)))
                for (text, _), score in zip(joined_words, again, strict=True)
            ]
        return words


def merged_pieces(
    tokens: Sequence[str],
    scores: Sequence[np.float32],
    rule: PieceRule,
    specials: Collection[str],
    *,
    cut_to_first_width: bool = False,
) -> list[Unit]:
    """Words with their pieces' scores added up, left to right.

    With the marks of XLM-R a piece goes to its left neighbour if it has no mark, is not special and is no part of the string
    of all punctuation; with those of BERT if it begins with ##.

    Parameters
    ----------
    cut_to_first_width : words that are joined after the first one are cut to the longest text that there was when the first
        was joined, as an array of strings of fixed width does.
    """
    continues = [_continues(token, rule, specials) for token in tokens]
    units: list[Unit] = []
    width: int | None = None
    for number, (token, score) in enumerate(zip(tokens, scores, strict=True)):
        if not units or not continues[number]:
            units.append((token, score))
            continue
        bare = token.removeprefix("##") if rule is PieceRule.BERT else token
        text = units[-1][0] + bare
        units[-1] = (text if width is None else text[:width], units[-1][1] + score)
        if width is None and cut_to_first_width:
            width = max(len(each) for each in (*(done for done, _ in units), *tokens[number + 1 :]))
    return units


def _continues(token: str, rule: PieceRule, specials: Collection[str]) -> bool:
    if rule is PieceRule.BERT:
        return token.startswith("##")
    return not token.startswith(WORD_MARK) and token not in specials and token not in string.punctuation


def _stripped(token: str) -> str:
    return token[1:] if token[:1] in (WORD_MARK, BYTE_MARK) else token
