"""Phrases without a parser: runs of words between function words and punctuation.

The published code takes noun chunks from spaCy; this stands in for them. Phrases tile the text: each carries the blank
behind it, so those that stay join without a separator.
"""

from __future__ import annotations

import re

_FUNCTION_WORDS = (
    "a about above after again against all also although among an and any are as at be because been before being "
    "below between both but by can could did do does doing down during each either for from further had has have "
    "having he her here hers him his how however i if in into is it its itself just may me might more most must my "
    "neither no nor not of off on once only or other our out over own same shall she should since so some such than "
    "that the their them then there these they this those though through thus to too under until up upon very was we "
    "were what when where whether which while who whom why will with within without would yet you your "
)
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())

_WORD = re.compile(r"\S+\s*|^\s+")


def phrase_spans(text: str) -> list[tuple[int, int]]:
    """The characters (start, end) of the phrases of `text`, in order, without gaps.

    A function word is a phrase by itself; so is the last word of a run that ends with punctuation, with its run.
    """
    spans: list[tuple[int, int]] = []
    open_run = False
    for found in _WORD.finditer(text):
        word = found.group().strip()
        function = word.lower().strip(".,;:!?()\"'`*") in FUNCTION_WORDS
        if open_run and not function:
            spans[-1] = (spans[-1][0], found.end())
        else:
            spans.append((found.start(), found.end()))
        open_run = not function and bool(word) and (word[-1].isalnum() or word[-1] in "_'\"*`)")
    return spans
