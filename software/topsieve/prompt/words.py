"""Word pieces to words: which piece begins a word, and what a word's text and probability are.

Specification `methods-text`, section 2, steps 8 to 10.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np


class PieceRule(StrEnum):
    """How a tokenizer marks pieces: BERT's continuations start with ##, XLM-R's words with a low line (U+2581)."""

    BERT = "bert"
    XLM_R = "xlm-roberta"


WORD_MARK = "▁"


@dataclass(frozen=True)
class Piece:
    """A word piece as the tokenizer writes it, and the characters `start` to `end` of the text that it stands for."""

    text: str
    start: int
    end: int


@dataclass
class Word:
    """A word: its text as pieces are joined, the characters it stands for, and its pieces' probabilities.

    Parameters
    ----------
    probabilities : after forcing; `unforced` : as the classifier gave them.
    """

    text: str
    start: int
    end: int
    probabilities: list[float | np.float32] = field(default_factory=list)
    unforced: list[float | np.float32] = field(default_factory=list)


def begins_word(piece: str, rule: PieceRule, forced: Collection[str]) -> bool:
    """Whether `piece` begins a word; `forced` are the forced tokens and their placeholders."""
    if rule is PieceRule.XLM_R:
        return piece in string.punctuation or piece in forced or piece.startswith(WORD_MARK)
    return piece.lstrip("#") in forced or not piece.startswith("##")


def pure(piece: str, rule: PieceRule) -> str:
    """`piece` without its mark."""
    return piece.lstrip(WORD_MARK) if rule is PieceRule.XLM_R else piece.lstrip("#")


def words_of(
    pieces: Sequence[Piece],
    probabilities: Sequence[np.float32],
    rule: PieceRule,
    *,
    specials: Collection[str] = (),
    forced: Sequence[str] = (),
    placeholders: Mapping[str, str] | None = None,
    reserve_digits: bool = False,
) -> list[Word]:
    """The words of `pieces`; special pieces are left out.

    Parameters
    ----------
    probabilities : of each piece to be kept.
    specials : pieces that are not text.
    forced : tokens whose words stay.
    placeholders : forced token to the piece that stands for it in `pieces`.
    reserve_digits : pieces with a digit stay.
    """
    originals = {placeholder: token for token, placeholder in (placeholders or {}).items()}
    standing = {*forced, *originals}

    def restored(text: str) -> str:
        for placeholder, token in originals.items():
            text = text.replace(placeholder, token)
        return text

    words: list[Word] = []
    for piece, probability in zip(pieces, probabilities, strict=True):
        if piece.text in specials:
            continue
        bare = pure(piece.text, rule)
        digit = reserve_digits and any(letter.isdigit() for letter in restored(piece.text))
        if not words or begins_word(piece.text, rule, standing):
            given = 1.0 if bare in standing or digit else probability
            words.append(Word(restored(piece.text), piece.start, piece.end, [given], [probability]))
        else:
            words[-1].text += restored(bare)
            words[-1].end = piece.end
            words[-1].probabilities.append(1.0 if digit else probability)
            words[-1].unforced.append(probability)
    return words


def word_probability(probabilities: Sequence[float | np.float32], how: str) -> float:
    """The mean of a word's pieces (left to right, in their own precision), or the first one."""
    if how == "first":
        return float(probabilities[0])
    return float(sum(probabilities) / len(probabilities))
