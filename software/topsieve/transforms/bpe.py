"""`Bpe`: byte-pair encoding trained on text, for transforms that need a tokenizer whose every rule is known.

Symbols are characters; bytes are taken as the 256 characters of Latin-1.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heapify, heappop, heappush
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

WORDS = r" ?\w+| ?[^\w\s]+|\s"
BYTES = tuple(map(chr, range(256)))

Pair = tuple[str, str]


@dataclass(frozen=True)
class Bpe:
    """A byte-pair encoding.

    Parameters
    ----------
    alphabet : single characters. merges : pairs in the order in which they are joined.
    """

    alphabet: tuple[str, ...]
    merges: tuple[Pair, ...]
    _followers: dict[int | None, NDArray[np.bool_]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """Text of each token; two merges that spell the same text are one token."""
        return tuple(dict.fromkeys((*self.alphabet, *(left + right for left, right in self.merges))))

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token of each text."""
        return {text: index for index, text in enumerate(self.vocabulary)}

    def starting(self, text: str) -> tuple[int, ...]:
        """Tokens whose text starts with `text`, ascending."""
        return self._prefixes.get(text, ())

    @cached_property
    def _prefixes(self) -> dict[str, tuple[int, ...]]:
        found: defaultdict[str, list[int]] = defaultdict(list)
        for token, text in enumerate(self.vocabulary):
            for length in range(len(text) + 1):
                found[text[:length]].append(token)
        return {prefix: tuple(tokens) for prefix, tokens in found.items()}

    @cached_property
    def _ranks(self) -> dict[Pair, int]:
        return {pair: rank for rank, pair in reversed(list(enumerate(self.merges)))}

    def encode(self, text: str) -> tuple[int, ...]:
        """The tokens of `text`: again and again the earliest merge, at all its places from the left."""
        symbols = list(text)
        while len(symbols) > 1:
            rank, pair = min((self._ranks.get(pair, len(self.merges)), pair) for pair in pairwise(symbols))
            if rank == len(self.merges):
                break
            symbols = _joined(symbols, pair)
        return tuple(self.ids[symbol] for symbol in symbols)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of `tokens`."""
        return "".join(self.vocabulary[token] for token in tokens)

    def canonical(self, tokens: Sequence[int]) -> bool:
        """Whether `tokens` are what `encode` makes of their own text."""
        return self.encode(self.decode(tokens)) == tuple(tokens)

    def followers(self, token: int | None) -> NDArray[np.bool_]:
        """bool [V]: what can stand behind `token` in a canonical sequence, or at its start (None).

        Pairs decide: a sequence is canonical if and only if all its neighbours are.
        """
        if token not in self._followers:
            before = () if token is None else (token,)
            found = [self.canonical((*before, other)) for other in range(len(self.vocabulary))]
            self._followers[token] = np.array(found)
        return self._followers[token]


def trained(text: str, merges: int, *, chunks: str = WORDS, alphabet: Sequence[str] | None = None) -> Bpe:
    """An encoding of `merges` merges, most frequent pair first; ties go to the smallest pair.

    Parameters
    ----------
    chunks : regular expression; pairs are counted within its matches only, so no token crosses them.
    alphabet : characters that have tokens; by default those of `text`.
    """
    counts = Counter(re.findall(chunks, text))
    words = [(list(chunk), count) for chunk, count in counts.items()]
    pairs: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for number, (symbols, count) in enumerate(words):
        for pair in pairwise(symbols):
            pairs[pair] += count
            places[pair].add(number)
    # Entries of the heap go stale when a count changes; the valid one of a pair carries its present count.
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapify(heap)
    found: list[Pair] = []
    while heap and len(found) < merges:
        count, best = heappop(heap)
        if pairs.get(best) != -count:
            continue
        found.append(best)
        changed: set[Pair] = set()
        for number in places.pop(best):
            symbols, times = words[number]
            joined = _joined(symbols, best)
            words[number] = (joined, times)
            for pair in pairwise(symbols):
                pairs[pair] -= times
            for pair in pairwise(joined):
                pairs[pair] += times
                places[pair].add(number)
            changed.update(pairwise(symbols), pairwise(joined))
        for pair in changed:
            if pairs[pair] > 0:
                heappush(heap, (-pairs[pair], pair))
            else:
                del pairs[pair]
    return Bpe(tuple(alphabet or sorted(set(text))), tuple(found))


def _joined(symbols: Sequence[str], pair: Pair) -> list[str]:
    out: list[str] = []
    index = 0
    while index < len(symbols):
        if index + 1 < len(symbols) and (symbols[index], symbols[index + 1]) == pair:
            out.append(symbols[index] + symbols[index + 1])
            index += 2
        else:
            out.append(symbols[index])
            index += 1
    return out
