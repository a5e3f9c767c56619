"""Text of `byte-gpt`: the Python reference as bytes, split by topic, and recall sequences written into it.

A recall sequence is reference text with notes `@Kv` and questions `?Kv` between its words: K is a capital letter, v a
digit or small letter drawn anew for each sequence. Who reads the question `?K` and knows the note `@Kv` can say v.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

# Of the sorted topics, every tenth is never trained on.
HELD_OUT_EVERY = 10

NOTE, QUESTION = b"@", b"?"
KEYS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"
VALUES = b"0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Recall:
    """One recall question. `context` ends with `?K`; `answer` is the byte that belongs behind it."""

    context: bytes
    answer: int


@cache
def reference(*, held_out: bool) -> bytes:
    """The training topics, or the held-out ones, in sorted order: ASCII, runs of blanks and of empty lines shortened.

    Topics quote each other, so held-out paragraphs that stand in a training topic too are left out.
    """
    from pydoc_data.topics import topics

    names = [name for index, name in enumerate(sorted(topics)) if (index % HELD_OUT_EVERY == 0) == held_out]
    text = b"\n\n".join(plain(topics[name]) for name in names)
    if not held_out:
        return text
    trained = set(reference(held_out=False).split(b"\n\n"))
    return b"\n\n".join(paragraph for paragraph in text.split(b"\n\n") if paragraph not in trained)


def plain(text: str) -> bytes:
    """`text` as ASCII bytes; notes and questions stay free for recall sequences."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    kept = "\n".join(line for index, line in enumerate(lines) if line or (index and lines[index - 1]))
    content = kept.encode("ascii", "ignore").strip()
    return content.replace(NOTE, b"").replace(QUESTION, b"")


def digest() -> str:
    """SHA-256 of the training text: it changes with the version of Python."""
    return hashlib.sha256(reference(held_out=False)).hexdigest()


def window(draw: random.Random, content: bytes, length: int) -> bytes:
    """`length` successive bytes of `content` from a random place; it must hold more than these."""
    start = draw.randrange(len(content) - length)
    return content[start : start + length]


def recall_training(draw: random.Random, length: int, filler: float) -> tuple[bytes, list[int]]:
    """A sequence of many notes and questions, and the places of the answers.

    Parameters
    ----------
    length : bytes.
    filler : bytes of reference text between two of them, on average.
    """
    known: dict[int, int] = {}
    pieces: list[bytes] = []
    answers: list[int] = []
    text = window(draw, reference(held_out=False), length)
    used = at = 0
    while at < length:
        gap = int(draw.expovariate(1 / filler)) if filler else 0
        piece = text[used : used + gap]
        used += gap
        fresh = not known or (len(known) < 12 and draw.random() < 0.3)
        if fresh:
            key, value = draw.choice(KEYS), draw.choice(VALUES)
            known[key] = value
        else:
            key = draw.choice(list(known))
            value = known[key]
        piece += (NOTE if fresh else QUESTION) + bytes((key, value))
        at += len(piece)
        if not fresh:
            answers.append(at - 1)
        pieces.append(piece)
    return b"".join(pieces)[:length], [place for place in answers if place < length]


def recall_question(draw: random.Random, content: bytes, length: int, notes: int) -> Recall:
    """`notes` notes at random places of reference text and a question about one of them at the end.

    Parameters
    ----------
    content : text to write them into.
    length : bytes of the context, with the question's two.
    notes : number of notes, each about another key.
    """
    keys = draw.sample(KEYS, notes)
    written = [NOTE + bytes((key, draw.choice(VALUES))) for key in keys]
    body = window(draw, content, length - 2 - 3 * notes)
    noted = with_notes(draw, body, written)
    asked = draw.randrange(notes)
    return Recall(noted + QUESTION + bytes((keys[asked],)), written[asked][2])


def with_notes(draw: random.Random, body: bytes, notes: Sequence[bytes]) -> bytes:
    """`body` with `notes` at random places, in their order."""
    places = sorted(draw.randrange(len(body) + 1) for _ in notes)
    parts, start = [], 0
    for place, note in zip(places, notes, strict=True):
        parts += [body[start:place], note]
        start = place
    return b"".join([*parts, body[start:]])
