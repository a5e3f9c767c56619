"""Real English text to run models on: the Python language reference, which every CPython carries, or a user's file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from topsieve_sim.errors import InputError

# Long enough to say something, short enough for 96 word pieces in nearly all cases.
MINIMUM_WORDS, MAXIMUM_WORDS = 30, 70

PYTHON_PARAGRAPHS = 128

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"(])")


@dataclass(frozen=True)
class Corpus:
    """A named list of paragraphs, whitespace normalised."""

    name: str
    paragraphs: tuple[str, ...]

    def queries(self, count: int) -> tuple[str, ...]:
        """First sentences of `count` evenly spaced paragraphs (of all, where there are fewer)."""
        return tuple(first_sentence(paragraph) for paragraph in evenly_spaced(self.paragraphs, count))


def python_reference(count: int = PYTHON_PARAGRAPHS) -> Corpus:
    """`count` evenly spaced paragraphs of prose from `pydoc_data.topics`, the same for one version of Python.

    Prose is what does not start with a blank (code, grammar), is no heading or list item, has 30 to 70 words and ends a
    sentence.
    """
    from pydoc_data.topics import topics

    found = dict.fromkeys(
        paragraph for name in sorted(topics) for block in _blocks(topics[name]) if (paragraph := _prose(block))
    )
    return Corpus("python-reference", evenly_spaced(tuple(found), count))


def read_corpus(path: str | Path) -> Corpus:
    """The paragraphs of a text file: UTF-8, separated by blank lines, all of them.

    Raises
    ------
    InputError
        the file is missing, unreadable, not UTF-8 or holds no text.
    """
    source = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", source=source) from error
    except UnicodeDecodeError as error:
        raise InputError(f"byte {error.start} is not UTF-8", source=source, allowed="text in UTF-8") from error
    paragraphs = tuple(" ".join(block.split()) for block in _blocks(text))
    if not paragraphs:
        raise InputError("holds no text", source=source)
    return Corpus(Path(path).name, paragraphs)


def first_sentence(paragraph: str) -> str:
    """The paragraph up to the first end of a sentence."""
    return _SENTENCE_END.split(paragraph, maxsplit=1)[0]


def sentences(text: str) -> tuple[str, ...]:
    """The sentences of `text`: one ends at a full stop, exclamation or question mark before white space and a capital letter.

    White space between them belongs to none.
    """
    return tuple(filter(None, (sentence.strip() for sentence in _SENTENCE_END.split(text))))


def evenly_spaced(items: tuple[str, ...], count: int) -> tuple[str, ...]:
    """`count` of `items` at even distances, the first included; all of them where there are not more.

    Raises
    ------
    InputError
        `count` is under 1.
    """
    if count < 1:
        raise InputError("wrong value", field="count", value=count, allowed="at least 1")
    if len(items) <= count:
        return items
    return tuple(items[index * len(items) // count] for index in range(count))


def _blocks(text: str) -> list[str]:
    return [block for block in re.split(r"\n\s*\n", text.strip("\n")) if block.strip()]


def _prose(block: str) -> str:
    """The block as one line, or nothing where it is not prose."""
    if block[0].isspace() or block.startswith(("* ", "+", "|", "[", ".. ")) or re.search(r"^[*=~^-]{3,}$", block, re.M):
        return ""
    line = " ".join(block.split())
    whole = MINIMUM_WORDS <= len(line.split()) <= MAXIMUM_WORDS and line[0].isupper() and line.endswith(".")
    return line if whole else ""
