"""LexRank: which sentences of a text the others are like.

Specification `methods-text`, section 3c, step 4.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

THRESHOLD = 0.03
# The power method stops where a step of a component changes less.
TOLERANCE = 1e-8
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of `text` in small letters."""
    return _WORD.findall(text.lower())


def inverse_frequencies(documents: Sequence[str]) -> dict[str, float]:
    """log(documents / documents with the word) of each word."""
    found = Counter(word for document in documents for word in set(words(document)))
    return {word: math.log(len(documents) / count) for word, count in found.items()}


def similarity(left: Counter[str], right: Counter[str], frequencies: Mapping[str, float]) -> float:
    """Cosine of the counts, each weighted with the word's inverse frequency; 1 for words without one."""
    common = left.keys() & right.keys()
    dot = sum(left[word] * right[word] * frequencies.get(word, 1.0) ** 2 for word in sorted(common))
    if not dot:
        return 0.0
    lengths = [
        math.sqrt(sum((count * frequencies.get(word, 1.0)) ** 2 for word, count in sorted(each.items())))
        for each in (left, right)
    ]
    return dot / (lengths[0] * lengths[1])


def lexrank(sentences: Sequence[str], frequencies: Mapping[str, float]) -> list[float]:
    """Centrality of each sentence, with mean 1 in each connected component of like sentences.

    Two sentences are like each other where their similarity reaches `THRESHOLD`. The centrality is the stationary
    distribution of a walk from like to like, times the sentences of the component.
    """
    counts = [Counter(words(sentence)) for sentence in sentences]
    number = len(counts)
    like = np.zeros((number, number))
    for i in range(number):
        for j in range(number):
            like[i, j] = i == j or similarity(counts[i], counts[j], frequencies) >= THRESHOLD
    walk = like / like.sum(1, keepdims=True)
    scores = np.zeros(number)
    for component in _components(like):
        scores[component] = _stationary(walk[np.ix_(component, component)])
    return [float(score) for score in scores]


def _stationary(walk: NDArray[np.float64]) -> NDArray[np.float64]:
    """The power method from all ones, the matrix squared at each step."""
    vector = np.ones(len(walk))
    if len(walk) == 1:
        return vector
    turned = walk.T
    while True:
        following: NDArray[np.float64] = turned @ vector
        if np.allclose(following, vector, rtol=0, atol=TOLERANCE):
            return following
        vector, turned = following, turned @ turned


def _components(like: NDArray[np.float64]) -> list[list[int]]:
    """Numbers of the sentences of each connected component, ascending."""
    left = set(range(len(like)))
    found = []
    while left:
        reached, front = set(), {min(left)}
        while front:
            reached |= front
            front = {int(j) for i in front for j in like[i].nonzero()[0]} - reached
        found.append(sorted(reached))
        left -= reached
    return found
